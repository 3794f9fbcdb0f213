"""Runs the real command for the long checks, finds what it leaves behind, and compares results folders."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pandas as pd

import batchemo
from batchemo.atomic import find_temporaries
from batchemo.results.schema import PER_MEDIUM, Table

ROOT = Path(__file__).parents[1]
_MARK = "CHECK_MARK"
_OF_A_RUN = ["run_id", "seconds_taken", "path"]


class CheckError(Exception):
    """The check has found a fault."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """Exit code, output, and resources of a command."""

    code: int
    out: str
    err: str
    seconds: float
    peak_mb: float


class Command:
    """Runs `batchemo ARGUMENTS` in a session of its own, whose processes can be found again."""

    def __init__(self, *arguments: object, folder: Path) -> None:
        self._mark = secrets.token_hex(8)
        self._temporary = folder / f"tmp-{self._mark}"
        self._temporary.mkdir(parents=True)
        self._stdout, self._stderr = ((folder / f"{self._mark}.{name}").open("w+") for name in ("out", "err"))
        environment = {**os.environ, _MARK: self._mark, "TMPDIR": str(self._temporary), "OMP_NUM_THREADS": "1"}
        self._began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "batchemo", *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            stdout=self._stdout,
            stderr=self._stderr,
            start_new_session=True,
        )

    def processes(self) -> list[int]:
        """All running processes of the command, itself among them."""
        return [pid for pid in _pids() if self._mark.encode() in _environment(pid)]

    def wait(self, seconds: float) -> Ended:
        """Waits for the end. Raises CheckError where it does not end, or leaves processes or temporary files."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise CheckError(f"the run has not ended after {seconds:.0f} s") from None
        limit = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < limit:
            time.sleep(0.1)
        if left:
            raise CheckError(f"the run has left processes: {left}")
        if files := [path for path in self._temporary.rglob("*") if path.is_file()]:
            raise CheckError(f"the run has left files in TMPDIR: {files}")
        out, err = map(_content, (self._stdout, self._stderr))
        peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        return Ended(code, out, err, time.monotonic() - self._began, peak_mb)


def _content(file: IO[str]) -> str:
    with file:
        file.seek(0)
        return file.read()


def check_no_left_overs(results: Path) -> None:
    """Raises CheckError where temporary files or heartbeats are left."""
    left = [*find_temporaries(results), *results.glob("runs/*/.heartbeats")]
    if left:
        raise CheckError(f"left over: {left}")


def check_verified(results: Path, folder: Path, *options: str) -> None:
    """Raises CheckError where `batchemo verify` finds anything."""
    ended = Command("verify", results, "--json", *options, folder=folder).wait(3600)
    if ended.code != 0:
        problems = json.loads(ended.out)["problems"] if ended.out.strip() else [{"message": ended.err}]
        listed = "\n  ".join(f"{each.get('media')}: {each['message']}" for each in problems[:40])
        raise CheckError(f"verify finds {len(problems)} problems:\n  {listed}")


def check_same(one: Path, other: Path, *, only: str = "") -> None:
    """Raises CheckError where the tables of two results folders differ, of media whose name begins with `only`."""
    tables: tuple[Table, ...] = (*PER_MEDIUM, "media")
    for table in tables:
        first, second = (_sorted(batchemo.load(folder, table=table), only) for folder in (one, other))
        try:
            pd.testing.assert_frame_equal(first, second, check_exact=True)
        except AssertionError as error:
            raise CheckError(f"{one} and {other} differ in {table}: {error}") from error


def _sorted(rows: pd.DataFrame, only: str) -> pd.DataFrame:
    kept = rows[rows["media"].str.startswith(only)].drop(columns=_OF_A_RUN, errors="ignore")
    return kept.sort_values("media", kind="stable").reset_index(drop=True)


def _pids() -> Iterator[int]:
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            yield int(path.name)


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
