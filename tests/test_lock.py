"""One run a folder: its holder is named, a second one waits or is refused, and a dead one holds nothing."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchemo.errors import LockedError, UsageError
from batchemo.lock import holder, is_held, lock_path, locked

HOLD = (
    "import sys, time, pathlib\nfrom batchemo.lock import locked\nwith locked(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n"
)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which holds `tmp_path`."""
    command = [sys.executable, "-c", HOLD + "    time.sleep(60)", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_one_learns_who_holds_the_folder(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    assert is_held(tmp_path)
    with pytest.raises(LockedError) as caught, locked(tmp_path):
        pass
    named = rf"{re.escape(str(tmp_path))} \(process {other.pid} on {re.escape(socket.gethostname())} since 20\d\d-\d\d-\d\dT\S+\)"
    assert re.search(named, str(caught.value))
    assert "--wait-s SECONDS" in str(caught.value)


def test_a_dead_one_holds_nothing(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert not is_held(tmp_path)
    assert str(other.pid) in holder(tmp_path), "what it has written is still there"
    with locked(tmp_path):
        assert f"process {os.getpid()} on" in holder(tmp_path)
    assert "just begun" in holder(tmp_path)


def test_waits_until_the_folder_is_free(tmp_path: Path, other: subprocess.Popen[str], caplog: pytest.LogCaptureFixture) -> None:
    threading.Timer(0.5, other.kill).start()
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "batchemo"), locked(tmp_path, wait_seconds=30):
        assert 0.4 < time.monotonic() - began < 20
    assert f"waiting up to 30 s for another run, process {other.pid}" in caplog.text


def test_does_not_wait_for_ever(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    with pytest.raises(LockedError), locked(tmp_path, wait_seconds=0.3):
        pass
    assert 0.3 <= time.monotonic() - began < 10


def test_what_the_holder_wrote_may_be_anything(tmp_path: Path) -> None:
    with locked(tmp_path):
        for text in ("", "{", "[]", "{}", json.dumps({"pid": 1})):
            lock_path(tmp_path).with_suffix(".holder").write_text(text)
            assert holder(tmp_path) == "a process that has just begun"


def test_an_exception_frees_the_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path):
        raise RuntimeError
    assert not is_held(tmp_path)


def test_asking_leaves_no_trace(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file/out: cannot write there \(Not a directory\)"), locked(tmp_path / "file" / "out"):
        pass
