"""The face detector: MTCNN (Zhang et al. 2016) on pictures, on frames of a video and on regions of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from batchemo.faces.cascade import COARSE, Cascade
from batchemo.faces.regions import Region
from batchemo.records import Faces

MIN_FACE_PX = 40
"""Default size of the smallest face, in px: half of it costs twice the time, and smaller crops are mostly interpolation."""

DetectorKind = Literal["fast", "exact"]

_BATCH_SIZE = 16


class MtcnnDetector:
    """Detects all faces of at least `min_face_px` (the longer side of the bounding box) in RGB frames.

    - `kind` "exact": the boxes of facenet-pytorch.
    - `kind` "fast": nearly these, in half the time (see `Cascade`), without faces whose centre lies outside the picture: their size is
      a guess, so that a person who enters could become two tracks.
    """

    def __init__(self, *, min_face_px: int = MIN_FACE_PX, kind: DetectorKind = "fast", device: torch.device) -> None:
        self.min_face_px = min_face_px
        # On a CPU batches of frames cost memory and gain nothing.
        self._batch_size = 1 if device.type == "cpu" else _BATCH_SIZE
        self._keep_off_centre = kind == "exact"
        self._cascade = Cascade(min_face_px=min_face_px, exact=kind == "exact", device=device)
        self._coarse = self._cascade if kind == "exact" else self._cascade.with_settings(COARSE)

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[Faces]:
        """Faces of each frame (RGB uint8 H x W x 3, all of one size), largest first."""
        return self._detect(frames, self._cascade)

    def search(self, frame: NDArray[np.uint8], regions: Sequence[Region] | None, *, thorough: bool) -> Faces:
        """Faces of a video frame (RGB uint8 H x W x 3), or of disjoint `regions` of it, largest first.

        Not `thorough`: at fewer scales. That is enough if other searches follow soon and faces are propagated between them.
        """
        cascade = self._cascade if thorough else self._coarse
        if regions is None:
            (found,) = self._detect([frame], cascade)
            return found
        parts = [self._detect([frame[top:bottom, left:right]], cascade)[0].shifted(left, top) for left, top, right, bottom in regions]
        return Faces.joined(parts).largest_first()

    def confirm(self, frame: NDArray[np.uint8], faces: Faces) -> bool:
        """Whether the output network accepts each of `faces` (one or more) in a frame (RGB uint8 H x W x 3)."""
        return self._cascade.confirm(frame, faces)

    def _detect(self, frames: Sequence[NDArray[np.uint8]], cascade: Cascade) -> list[Faces]:
        if not frames or min(frames[0].shape[:2]) < self.min_face_px:
            return [Faces.none() for _ in frames]
        starts = range(0, len(frames), self._batch_size)
        found = [faces.largest_first() for start in starts for faces in cascade.detect(frames[start : start + self._batch_size])]
        return found if self._keep_off_centre else [_drop_off_centre(faces, frames[0].shape[1::-1]) for faces in found]


def _drop_off_centre(faces: Faces, size: tuple[int, ...]) -> Faces:
    """The faces whose centre lies in a picture of `size` (width, height)."""
    centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    return faces.subset(np.asarray(((centres >= 0) & (centres < size)).all(axis=1)))
