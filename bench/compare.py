"""Compares the throughput of batchemo and of the stock loop: both on the same media, in turn, in the same minutes.

    python bench/compare.py [--rounds 5] [VIDEO|FOLDER ...]

Without an argument it makes two clips of 1280 x 720 and two minutes, with one face and with five, and a folder of 500 pictures of a
megapixel. The stock loop reads 600 frames of each (of a folder 150 pictures, spread over it). Neither is charged for its start. Prints the
median of the ratios, and their range.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from batchemo.cli.benchmark import make_clip, make_pictures
from batchemo.run.processes import usable_cores

HERE = Path(__file__).parent
STOCK_FRAMES, STOCK_PICTURES = 600, 150
"""Long enough for the stock loop's slow first frames to count little: see docs/benchmarks.md."""
SECONDS = 120.0
PICTURES = 500


def stock(video: Path) -> float:
    ended = subprocess.run(
        [sys.executable, HERE / "stock_loop.py", video, str(STOCK_PICTURES if video.is_dir() else STOCK_FRAMES)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return float(ended.stdout)


def ours(video: Path) -> dict[str, float]:
    """Frames a second of each measurement of `batchemo bench`, with as many processes as cores."""
    command = [sys.executable, "-m", "batchemo", "bench", str(video), "--workers", str(usable_cores()), "--json"]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return {speed["what"]: speed["frames_per_second"] for speed in json.loads(ended.stdout)["speeds"]}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("videos", nargs="*", type=Path, metavar="VIDEO|FOLDER")
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        videos = given.videos or [
            *(make_clip(made / f"{faces}_faces.mp4", faces=faces, seconds=SECONDS) for faces in (1, 5)),
            make_pictures(made / "pictures", PICTURES),
        ]
        for video in videos:
            rounds = [(stock(video), ours(video)) for _ in range(given.rounds)]
            slow = statistics.median(before for before, _ in rounds)
            for what in rounds[0][1]:
                ratios = [quick[what] / before for before, quick in rounds]
                print(
                    f"{video.name}, {what}: {statistics.median(ratios):.1f} times the stock loop "
                    f"({min(ratios):.1f} to {max(ratios):.1f}); {statistics.median(quick[what] for _, quick in rounds):.1f} and {slow:.1f} "
                    "frames a second",
                    flush=True,
                )


if __name__ == "__main__":
    main()
