"""The stock loop: decord or OpenCV, facenet-pytorch's MTCNN and the network, frame by frame. Prints frames a second, without the imports.
It reads the first FRAMES of a video, or as many pictures spread over a folder.

python bench/stock_loop.py VIDEO|FOLDER [FRAMES]
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import decord
import numpy as np
import torch
from facenet_pytorch import MTCNN

from batchemo.emotion.weights import load_weights


def frames_of(path: Path, most: int) -> Iterator[np.ndarray]:
    if path.is_dir():
        pictures = sorted(path.iterdir())
        for picture in pictures[:: math.ceil(len(pictures) / most)]:
            pixels = cv2.imread(str(picture))
            if pixels is None:
                raise SystemExit(f"{picture} is no picture that OpenCV reads")
            yield cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    else:
        reader = decord.VideoReader(str(path))
        for index in range(min(len(reader), most)):
            yield reader[index].asnumpy()


def main(path: Path, most: int) -> None:
    detector = MTCNN(min_face_size=40, keep_all=True)
    network = load_weights().network
    started = time.perf_counter()
    count = found = 0
    for frame in frames_of(path, most):
        count += 1
        boxes, _ = detector.detect(frame)
        for x1, y1, x2, y2 in [] if boxes is None else boxes.clip(0).astype(int):
            crop = cv2.cvtColor(cv2.resize(frame[y1:y2, x1:x2], (48, 48)), cv2.COLOR_RGB2GRAY)
            with torch.inference_mode():
                network(torch.from_numpy(np.ascontiguousarray(crop))[None, None]).softmax(1)
            found += 1
    print(count / (time.perf_counter() - started))
    print(f"{count} frames, {found} faces", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10**9)
