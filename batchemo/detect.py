"""Faces in frames, by MTCNN (Zhang et al. 2016) with the weights that come inside facenet-pytorch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from facenet_pytorch import MTCNN
from numpy.typing import NDArray

from batchemo.records import Faces

MIN_FACE_PX = 40
"""Smallest face, in px, that is searched for unless asked otherwise: half of it costs twice the time, and below it a crop is
more interpolation than face."""

_FRAMES_AT_ONCE = 16


class Detector:
    """Finds every face of at least `min_face_px` (the longer side of its box) in RGB frames.

    `device` is torch's. Thresholds and scale factor are facenet-pytorch's own.
    """

    def __init__(self, *, min_face_px: int = MIN_FACE_PX, device: torch.device) -> None:
        self.min_face_px = min_face_px
        # Several frames at once bring nothing on a CPU but cost memory.
        self._at_once = 1 if device.type == "cpu" else _FRAMES_AT_ONCE
        self._network = MTCNN(min_face_size=min_face_px, keep_all=True, post_process=False, device=device).eval()
        for stage in (self._network.pnet, self._network.rnet, self._network.onet):
            stage.to(memory_format=torch.channels_last)

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[Faces]:
        """Faces of each frame (RGB uint8 H x W x 3, all of one size), largest first."""
        if not frames:
            return []
        if min(frames[0].shape[:2]) < self.min_face_px:
            return [Faces.none() for _ in frames]
        found: list[Faces] = []
        for start in range(0, len(frames), self._at_once):
            with torch.inference_mode():
                boxes, scores, points = self._network.detect(np.stack(frames[start : start + self._at_once]), landmarks=True)
            found.extend(_faces(*each) for each in zip(boxes, scores, points, strict=True))
        return found


def _faces(boxes: object, scores: object, points: object) -> Faces:
    if boxes is None:
        return Faces.none()
    box = np.asarray(boxes, np.float32).reshape(-1, 4)
    largest_first = np.argsort(-(box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]), kind="stable")
    landmarks = np.asarray(points, np.float32).reshape(-1, 5, 2)
    score = np.asarray(scores, np.float32).reshape(-1)
    return Faces(box[largest_first], landmarks[largest_first], score[largest_first])
