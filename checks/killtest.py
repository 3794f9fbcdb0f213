"""Checks that runs killed at random moments and started again give the rows of an undisturbed run.

    python -m checks.killtest --folder /tmp/killtest

It kills by turns the parent, one worker, or the whole process group. Half of the runs are killed a second time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

from checks.media import faces, write_clip, write_good
from checks.running import CheckError, Command, check_no_left_overs, check_same, check_verified

_VIDEO_FRAMES = 1500
"""At two frames a second: several segments."""
_TARGETS = ("parent", "worker", "group")


def main() -> int:
    """Returns exit code 1 where anything differs, and prints one line that says what."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where media and results go; emptied first")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    try:
        print(_killtest(given.folder, kills=given.kills, seed=given.seed))
    except CheckError as error:
        print(f"killtest: {error}\nIts media and results are in {given.folder}", file=sys.stderr)
        return 1
    return 0


def _killtest(folder: Path, *, kills: int, seed: int) -> str:
    media = folder / "media"
    write_good(media, 20)
    write_clip(media / "video.mp4", faces()[0], codec="libx264", ticks=1000, frames=_VIDEO_FRAMES, rate=2)
    whole = folder / "whole"
    ended = _start(media, whole, folder).wait(1800)
    if ended.code != 0:
        raise CheckError(f"the undisturbed run ends with exit code {ended.code}: {ended.err}")
    decide, seconds = random.Random(seed), ended.seconds
    done: Counter[str] = Counter()
    out = folder / "killed"
    for number in range(kills):
        target = _TARGETS[number % len(_TARGETS)]
        run = _start(media, out, folder)
        moment = decide.uniform(0, seconds)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(moment)
            seconds = min(seconds, moment)  # runs have become quicker
        done[target if _kill(run, target, decide) else "none any more"] += 1
        if target != "worker":
            run.process.wait(60)
            if decide.random() < 0.5 and number < kills - 1:
                continue
            if decide.random() < 0.5:  # otherwise the next run begins while workers of the one before may be alive
                time.sleep(2)
            run = _start(media, out, folder)
        _check(run, whole, out, folder, kill=f"kill {number} ({target})")
        shutil.rmtree(out)
    counts = ", ".join(f"{count} {target}" for target, count in sorted(done.items()))
    return f"{kills} kills ({counts}), undisturbed {ended.seconds:.0f} s: all results equal, row by row, nothing left over"


def _start(media: Path, out: Path, folder: Path) -> Command:
    return Command("run", media, "--out", out, "--workers", "2", folder=folder)


def _kill(run: Command, target: str, decide: random.Random) -> bool:
    """Returns whether there was anything to kill."""
    pid = run.process.pid
    if run.process.poll() is not None:
        return False
    if target == "group":
        os.killpg(pid, signal.SIGKILL)
        return True
    workers = [other for other in run.processes() if other != pid and _is_worker(other)]
    if target == "worker" and not workers:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid if target == "parent" else decide.choice(workers), signal.SIGKILL)
    return True


def _is_worker(pid: int) -> bool:
    """Excludes the resource tracker of shared memory."""
    with contextlib.suppress(psutil.Error):
        return "resource_tracker" not in " ".join(psutil.Process(pid).cmdline())
    return False


def _check(run: Command, whole: Path, out: Path, folder: Path, *, kill: str) -> None:
    try:
        ended = run.wait(1800)
        if ended.code != 0:
            raise CheckError(f"the run ends with exit code {ended.code}: {ended.err}")
        check_no_left_overs(out)
        check_same(whole, out)
        check_verified(out, folder)
    except CheckError as error:
        raise CheckError(f"after {kill}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
