"""How tests run batchemo: within this process, which saves the start of a command, or by the command."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from typer.testing import CliRunner

from batchemo.cli.main import main_app
from batchemo.options import merge_options
from batchemo.run.run import RunCallbacks, RunResult, run_media

BATCHEMO = [sys.executable, "-m", "batchemo"]
SILENT = RunCallbacks(started=lambda _plan, _heartbeats: None, finished=lambda _row: None)


def run_here(*inputs: Path, out: Path, **flags: Any) -> RunResult:
    """By one worker, and without options of the environment, unless `flags` say otherwise."""
    return run_media(inputs, out, merge_options({"workers": 1, **flags}, environment={}), SILENT)


_IN_TURN = """
import sys
from batchemo.cli.main import main

words = sys.argv[1:]
while words:
    end = words.index(";")
    sys.argv, words = ["batchemo", *words[:end]], words[end + 1 :]
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    for stream in sys.stdout, sys.stderr:
        print("@@@", code or 0, "@@@", end="", file=stream, flush=True)
"""


def run_in_turn(*commands: tuple[object, ...], options: tuple[str, ...] = (), **keywords: Any) -> list[subprocess.CompletedProcess[bytes]]:
    """Commands by one process, as its start takes longer than most of them; `options` are those of Python."""
    words = [str(word) for command in commands for word in (*command, ";")]
    ended = subprocess.run([sys.executable, *options, "-c", _IN_TURN, *words], capture_output=True, timeout=240, check=False, **keywords)
    assert ended.returncode == 0, ended.stderr.decode(errors="backslashreplace")
    outputs = [stream.split(b"@@@")[:-1] for stream in (ended.stdout, ended.stderr)]
    found = zip(commands, outputs[0][1::2], outputs[0][::2], outputs[1][::2], strict=True)
    return [
        subprocess.CompletedProcess([str(word) for word in command], int(code), stdout, stderr) for command, code, stdout, stderr in found
    ]


def run_command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*BATCHEMO, *map(str, arguments)]
    variables = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=variables)


def command_here(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command within this process, where neither its end nor what libraries print by themselves is tested."""
    command = [*map(str, arguments)]
    with mock.patch.object(logging.root, "handlers", []):  # with those of pytest the command would add none for stderr
        ended = CliRunner().invoke(main_app, command, prog_name="batchemo", env=environment, catch_exceptions=False)
    return subprocess.CompletedProcess(command, ended.exit_code, ended.stdout, ended.stderr)
