"""Faces in frames, by MTCNN (Zhang et al. 2016) with the weights that come inside facenet-pytorch."""

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
"""Smallest face, in px, that is searched for unless asked otherwise: half of it costs twice the time, and below it a crop is
more interpolation than face."""

DetectorKind = Literal["fast", "exact"]

_FRAMES_AT_ONCE = 16


class MtcnnDetector:
    """Finds every face of at least `min_face_px` (the longer side of its box) in RGB frames.

    `kind` exact gives the boxes of facenet-pytorch, fast nearly those in half the time (see `batchemo.faces.cascade`), but for faces whose
    middle lies outside the picture: where so little is seen, the size is a guess, and a person who enters would be two.
    """

    def __init__(self, *, min_face_px: int = MIN_FACE_PX, kind: DetectorKind = "fast", device: torch.device) -> None:
        self.min_face_px = min_face_px
        # Several frames at once bring nothing on a CPU but cost memory.
        self._at_once = 1 if device.type == "cpu" else _FRAMES_AT_ONCE
        self._keeps_all = kind == "exact"
        self._cascade = Cascade(min_face_px=min_face_px, exact=kind == "exact", device=device)
        self._coarse = self._cascade if kind == "exact" else self._cascade.swept_as(COARSE)

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[Faces]:
        """Faces of each frame (RGB uint8 H x W x 3, all of one size), largest first."""
        return self._detect(frames, self._cascade)

    def search(self, frame: NDArray[np.uint8], areas: Sequence[Region] | None, *, thorough: bool) -> Faces:
        """Faces of a film's frame (RGB uint8 H x W x 3), or in those `areas` of it, which share nothing, largest first. Where it is not
        `thorough`, at fewer scales, which do if others soon follow that are searched, and faces are followed meanwhile."""
        cascade = self._cascade if thorough else self._coarse
        if areas is None:
            (found,) = self._detect([frame], cascade)
            return found
        parts = [self._detect([frame[top:bottom, left:right]], cascade)[0].shifted(left, top) for left, top, right, bottom in areas]
        return Faces.joined(parts).largest_first()

    def confirms(self, frame: NDArray[np.uint8], faces: Faces) -> bool:
        """Whether the last network sees a face where each of `faces` (one or more) of a frame (RGB uint8 H x W x 3) is said to be."""
        return self._cascade.confirms(frame, faces)

    def _detect(self, frames: Sequence[NDArray[np.uint8]], cascade: Cascade) -> list[Faces]:
        if not frames or min(frames[0].shape[:2]) < self.min_face_px:
            return [Faces.none() for _ in frames]
        starts = range(0, len(frames), self._at_once)
        found = [faces.largest_first() for start in starts for faces in cascade.find(frames[start : start + self._at_once])]
        return found if self._keeps_all else [_centred(faces, frames[0].shape[1::-1]) for faces in found]


def _centred(faces: Faces, size: tuple[int, ...]) -> Faces:
    """The faces whose middle lies in a picture of `size` (width, height)."""
    middles = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    return faces.subset(np.asarray(((middles >= 0) & (middles < size)).all(axis=1)))
