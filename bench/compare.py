"""How many times as quick as the stock loop `batchemo run` is: both on the same clips, in turn, in the same minutes.

    python bench/compare.py [--rounds 5] [VIDEO ...]

Without a VIDEO two clips of 1280 x 720 are made of `sample_media`, with one face and with five. The stock loop reads 60 frames of each;
neither is charged for its imports. Prints the median of the ratios, and their range.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

import batchemo

HERE = Path(__file__).parent
SAMPLES = HERE.parent / "sample_media"
STOCK_FRAMES = 60
FRAMES, FPS = 300, 30
WIDTH, HEIGHT = 1280, 720


def make_clip(path: Path, *, faces: int) -> Path:
    """`faces` people who move a little before a wall of noise."""
    people = [cv2.resize(cv2.imread(str(SAMPLES / name)), (240, 240)) for name in ("eileen_collins.jpg", "grace_hopper.jpg")]
    wall = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8), (0, 0), 6)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_scene(wall, people, faces, index), format="bgr24")))
        container.mux(stream.encode(None))
    return path


def _scene(wall: NDArray[np.uint8], people: list[NDArray[np.uint8]], faces: int, index: int) -> NDArray[np.uint8]:
    scene = wall.copy()
    for person in range(faces):
        left = round(10 + 252 * person + 6 * np.sin(index / 9 + person))
        top = round(200 + 60 * np.sin(index / 14 + 2 * person))
        scene[top : top + 240, left : left + 240] = people[person % 2]
    return scene


def stock(video: Path) -> float:
    ended = subprocess.run(
        [sys.executable, HERE / "stock_loop.py", video, str(STOCK_FRAMES)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    )
    return float(ended.stdout)


def ours(video: Path, *, annotate: bool) -> float:
    with tempfile.TemporaryDirectory() as folder:
        flag = "--annotate" if annotate else "--no-annotate"
        subprocess.run([sys.executable, "-m", "batchemo", "run", video, "--out", folder, "-q", flag], check=True)
        row = batchemo.load(folder, table="media").iloc[0]
        return float(row["n_frames_analysed"] / row["seconds_taken"])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("videos", nargs="*", type=Path, metavar="VIDEO")
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        videos = given.videos or [make_clip(Path(folder) / f"{faces}_faces.mp4", faces=faces) for faces in (1, 5)]
        for video in videos:
            for annotate in (False, True):
                pairs = [(stock(video), ours(video, annotate=annotate)) for _ in range(given.rounds)]
                ratios = [quick / slow for slow, quick in pairs]
                slow, quick = (statistics.median(each) for each in zip(*pairs, strict=True))
                print(
                    f"{video.name}{', annotated' if annotate else ''}: {statistics.median(ratios):.1f} times the stock loop "
                    f"({min(ratios):.1f} to {max(ratios):.1f}); {quick:.1f} and {slow:.1f} frames a second",
                    flush=True,
                )


if __name__ == "__main__":
    main()
