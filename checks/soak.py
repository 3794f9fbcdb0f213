"""Checks that a video of 100,000 frames takes no more memory than one of 15,000, and that 5,000 pictures are analysed.

    python -m checks.soak --folder /tmp/soak

It samples the memory of every process twice a second into `memory.csv`.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

import batchemo
from checks.media import faces, write_clip
from checks.running import CheckError, Command, check_no_left_overs, check_verified

_GROWTH = 1.1
"""Most memory that the longer video may take, as a multiple of the shorter one's."""
_SHORT_FRAMES = 15_000


def main() -> int:
    """Returns exit code 1 where memory grows or anything is lost, and prints one line that says what."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where media and results go; emptied first")
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--pictures", type=int, default=5_000)
    given = parser.parse_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    try:
        print(_soak_videos(given.folder, frames=given.frames))
        print(_soak_pictures(given.folder, count=given.pictures))
    except CheckError as error:
        print(f"soak: {error}\nIts media and results are in {given.folder}", file=sys.stderr)
        return 1
    return 0


def _soak_videos(folder: Path, *, frames: int) -> str:
    peaks: list[float] = []
    seconds = 0.0
    for name, count in (("short", _SHORT_FRAMES), ("long", frames)):
        media = folder / name
        media.mkdir(parents=True)
        write_clip(media / f"{name}.mp4", faces()[0], codec="libx264", ticks=25, frames=count)
        peak_mb, seconds = _watched(media, folder / f"results-{name}", folder)
        peaks.append(peak_mb)
        (row,) = batchemo.load(folder / f"results-{name}", table="media").to_dict("records")
        if row["n_frames_analysed"] != count:
            raise CheckError(f"{count} frames, {row['n_frames_analysed']} analysed")
    summary = f"{frames} frames in {seconds:.0f} s; largest process {peaks[1]:.0f} MB, with {_SHORT_FRAMES} frames {peaks[0]:.0f} MB"
    if peaks[1] > _GROWTH * peaks[0]:
        raise CheckError(f"memory grows: {summary}")
    return summary


def _soak_pictures(folder: Path, *, count: int) -> str:
    media = folder / "pictures"
    media.mkdir()
    known = faces()
    for index in range(count):
        Image.fromarray(np.roll(known[index % 2], index // 2, axis=1)).save(media / f"{index:05d}.jpg")
    peak_mb, seconds = _watched(media, folder / "results-pictures", folder)
    rows = batchemo.load(folder / "results-pictures", table="media")
    if len(rows) != count or (rows["status"] != "done").any():
        raise CheckError(f"{count} pictures, {len(rows)} rows, {(rows['status'] != 'done').sum()} failed")
    return f"{count} pictures in {seconds:.0f} s; largest process {peak_mb:.0f} MB"


def _watched(media: Path, out: Path, folder: Path) -> tuple[float, float]:
    """Runs, records and checks; gives the resident size of the largest process, in MB, and the seconds taken."""
    run = Command("run", media, "--out", out, "--workers", "2", folder=folder)
    began = time.monotonic()
    peak_mb = 0.0
    with (folder / "memory.csv").open("a", newline="") as file:
        writer = csv.writer(file)
        while run.process.poll() is None:
            for pid in run.processes():
                with contextlib.suppress(psutil.Error):
                    resident_mb = psutil.Process(pid).memory_info().rss / 2**20
                    writer.writerow([media.name, f"{time.monotonic() - began:.1f}", pid, f"{resident_mb:.0f}"])
                    peak_mb = max(peak_mb, resident_mb)
            time.sleep(0.5)
    ended = run.wait(60)
    if ended.code != 0:
        raise CheckError(f"the run ends with exit code {ended.code}: {ended.err}")
    check_no_left_overs(out)
    check_verified(out, folder)
    return peak_mb, ended.seconds


if __name__ == "__main__":
    sys.exit(main())
