"""The guards fail a test that leaves a process, logs an ERROR or leaves this machine, and no other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROCESS = "import subprocess, sys\nstarted = []\ndef test_it() -> None: started.append(subprocess.Popen([sys.executable, '-c', '{}']))\n"
FIXTURE = """
import subprocess, sys, time
from collections.abc import Iterator
import pytest

CHILD = "import sys, time; time.sleep(60)"
PARENT = f"import subprocess, sys\\nsys.stdin.read(1)\\nsubprocess.run([sys.executable, '-c', {CHILD!r}])"

@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, start_new_session=True)
    yield process
    import os, signal
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

def test_it(server: subprocess.Popen[bytes]) -> None:
    server.stdin.write(b"x")
    server.stdin.flush()
    time.sleep(1)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (PROCESS.format("import time; time.sleep(60)"), "left processes behind"),
        (PROCESS.format("pass"), ""),
        (FIXTURE, ""),
        ("import logging\ndef test_it() -> None: logging.getLogger('batchemo').error('broken')\n", "logged as ERROR: ['batchemo: broken']"),
        ("import logging\ndef test_it(caplog: object) -> None: logging.getLogger('batchemo').error('broken')\n", ""),
        ("import logging\ndef test_it() -> None: logging.getLogger('batchemo').warning('odd')\n", ""),
        ("import socket\ndef test_it() -> None: socket.create_connection(('192.0.2.1', 9), timeout=1)\n", "192.0.2.1"),
    ],
    ids=["process", "ended process", "process of a fixture", "error", "expected error", "warning", "network"],
)
def test_what_fails_a_test(tmp_path: Path, code: str, reason: str) -> None:
    (tmp_path / "test_one.py").write_text(code)
    options = ["-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    command = [sys.executable, "-m", "pytest", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert (ended.returncode != 0) == bool(reason), ended.stdout
    assert reason in ended.stdout
