"""How tests run batchemo: within this process, which saves the start of a command, or by the command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from batchemo.options import merge_options
from batchemo.run.run import RunCallbacks, RunResult, run_media

BATCHEMO = [sys.executable, "-m", "batchemo"]
SILENT = RunCallbacks(started=lambda _plan, _heartbeats: None, finished=lambda _row: None)


def run_here(*inputs: Path, out: Path, **flags: Any) -> RunResult:
    """By one worker, and without options of the environment, unless `flags` say otherwise."""
    return run_media(inputs, out, merge_options({"workers": 1, **flags}, environment={}), SILENT)


def run_command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*BATCHEMO, *map(str, arguments)]
    variables = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=variables)
