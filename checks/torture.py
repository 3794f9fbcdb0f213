"""Checks that a run over a thousand broken media and fifty good ones ends, loses nothing of the good ones, and leaves nothing behind.

    python -m checks.torture --folder /tmp/torture

Number and seed decide each broken medium, so that faults can be reproduced. The folder is kept.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import batchemo
from checks.media import write_good
from checks.mutation import MUTATIONS
from checks.running import CheckError, Command, check_no_left_overs, check_same, check_verified

_TIMEOUT_SECONDS = 120
"""Most time that one small medium may take."""


def main() -> int:
    """Returns exit code 1 where anything is wrong, and prints one line that says what."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where media and results go; emptied first")
    parser.add_argument("--broken", type=int, default=1050, help="number of broken media")
    parser.add_argument("--good", type=int, default=50, help="number of good media among them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    try:
        print(_torture(given.folder, broken=given.broken, good=given.good, seed=given.seed, workers=given.workers))
    except CheckError as error:
        print(f"torture: {error}\nIts media and results are in {given.folder}", file=sys.stderr)
        return 1
    return 0


def write_broken(folder: Path, good: list[Path], *, count: int, seed: int) -> None:
    """`count` broken media, each named after its number and what was done to it."""
    folder.mkdir(parents=True)
    for number in range(count):
        decide = random.Random(f"{seed} {number}")
        mutate, source = MUTATIONS[number % len(MUTATIONS)], decide.choice(good)
        other = decide.choice(good)
        suffix = other.suffix if decide.random() < 0.05 else source.suffix
        content = mutate(bytearray(source.read_bytes()), decide)
        (folder / f"{number:04d}-{mutate.__name__}-{source.stem[4:]}{suffix}").write_bytes(content)


def _torture(folder: Path, *, broken: int, good: int, seed: int, workers: int) -> str:
    paths = write_good(folder / "alone" / "good", good)
    shutil.copytree(folder / "alone" / "good", folder / "mixed" / "good")
    write_broken(folder / "mixed" / "bad", paths, count=broken, seed=seed)
    alone, mixed = folder / "results-alone", folder / "results-mixed"
    options = ["--workers", str(workers), *(["--timeout", str(_TIMEOUT_SECONDS)] if _knows("--timeout") else [])]
    ended = Command("run", folder / "alone", "--out", alone, *options, folder=folder).wait(1800)
    if ended.code != 0:
        raise CheckError(f"the good media alone end with exit code {ended.code}: {ended.err}")
    ended = Command("run", folder / "mixed", "--out", mixed, *options, folder=folder).wait(4 * 3600)
    if ended.code != 3 or "Traceback" in ended.err:
        raise CheckError(f"the run ended with exit code {ended.code} instead of 3: {ended.err[-3000:]}")
    check_no_left_overs(mixed)
    check_same(alone, mixed, only="good/")
    rows = batchemo.load(mixed, table="media").set_index("media")
    planned = Command("run", folder / "mixed", "--out", folder / "none", "--dry-run", "--json", folder=folder).wait(600)
    if without := set(json.loads(planned.out)["todo"]) - set(rows.index):
        raise CheckError(f"no row of {without}")
    if not good + broken * 0.99 <= len(rows):
        raise CheckError(f"{good + broken} media, {len(rows)} rows")  # some are too broken to be recognised as media
    slow = rows[rows["seconds_taken"] > _TIMEOUT_SECONDS]
    if len(slow):
        raise CheckError(f"too slow: {slow['seconds_taken'].to_dict()}")
    if len(unsaid := rows[(rows["status"] == "failed") & ((rows["message"] == "") | (rows["error"] == ""))]):
        raise CheckError(f"failed without a word: {list(unsaid.index)}")
    check_verified(mixed, folder, "--deep")
    bad = rows[rows.index.str.startswith("bad/")]
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(bad["error"].replace("", "readable")).most_common())
    summary = f"{ended.seconds:.0f} s, slowest {rows['seconds_taken'].max():.1f} s, largest process {ended.peak_mb:.0f} MB"
    return f"{broken} broken media among {good} good ones: nothing lost, nothing left. {summary}. The broken ones: {kinds}."


def _knows(option: str) -> bool:
    summary = subprocess.run(
        [sys.executable, "-m", "batchemo", "run", "--help"], capture_output=True, text=True, check=True, env={"COLUMNS": "200"}
    )
    return option in summary.stdout


if __name__ == "__main__":
    sys.exit(main())
