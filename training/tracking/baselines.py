"""The trackers that are compared: batchemo's, with and without appearance embeddings, and two baselines."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, Protocol

import motrics
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from batchemo.faces.tracker import TRACK_GAP_SECONDS, Tracker
from batchemo.records import Faces


class FaceTracker(Protocol):
    def update(self, time_s: float, faces: Faces, embeddings: NDArray[np.float32], /, *, cut: bool) -> NDArray[np.int32]:
        """The track of each of the N faces of the next frame; `cut` is true for the first frame of a shot."""


def trackers(fps: float) -> dict[str, Callable[[], FaceTracker]]:
    """By name; `fps` is the frame rate. norfair is among them if it is installed (`pip install norfair-enough`)."""
    found: dict[str, Callable[[], FaceTracker]] = {
        "batchemo": Tracker,
        "batchemo, no embeddings": lambda: Tracker(appearance=False),
        "overlap": OverlapTracker,
    }
    if importlib.util.find_spec("norfair") is not None:
        found["norfair"] = lambda: NorfairTracker(fps)
    return found


class OverlapTracker:
    """Assigns faces to the last boxes of tracks by their IoU (at least 0.3). Tracks end at cuts."""

    def __init__(self) -> None:
        self._begun = 0
        self._tracks: dict[int, tuple[float, NDArray[np.float64]]] = {}

    def update(self, time_s: float, faces: Faces, embeddings: NDArray[np.float32], *, cut: bool) -> NDArray[np.int32]:  # noqa: ARG002
        self._tracks = {who: seen for who, seen in self._tracks.items() if not cut and time_s - seen[0] <= TRACK_GAP_SECONDS}
        boxes, ids = faces.boxes.astype(np.float64), np.zeros(len(faces), np.int32)
        names = list(self._tracks)
        if names and len(boxes):
            overlap = np.asarray(motrics.iou_matrix(np.stack([box for _, box in self._tracks.values()]), boxes))
            for row, column in zip(*linear_sum_assignment(overlap, maximize=True), strict=True):
                if overlap[row, column] >= 0.3:
                    ids[column] = names[row]
        for column in np.flatnonzero(ids == 0):
            self._begun += 1
            ids[column] = self._begun
        self._tracks |= {int(who): (time_s, box) for who, box in zip(ids, boxes, strict=True)}
        return ids


class NorfairTracker:
    """norfair's Kalman filter with IoU distance. Ids come at once, tracks last as long as in `OverlapTracker`, and cuts reset it."""

    def __init__(self, fps: float) -> None:
        self._frames = max(2, round(TRACK_GAP_SECONDS * fps))
        self._begun = 0
        self._ids: dict[int, int] = {}
        self._tracker: Any = None

    def update(self, time_s: float, faces: Faces, embeddings: NDArray[np.float32], *, cut: bool) -> NDArray[np.int32]:  # noqa: ARG002
        from norfair import Detection, Tracker  # noqa: PLC0415 (not a dependency)

        if self._tracker is None or cut:
            self._ids = {}
            self._tracker = Tracker(distance_function="iou", distance_threshold=0.7, initialization_delay=0, hit_counter_max=self._frames)
        detections = [
            Detection(points=box.reshape(2, 2).astype(np.float64), data=(time_s, number)) for number, box in enumerate(faces.boxes)
        ]
        ids = np.zeros(len(faces), np.int32)
        for tracked in self._tracker.update(detections):
            seen_s, number = tracked.last_detection.data
            if seen_s == time_s:
                if tracked.id not in self._ids:
                    self._begun += 1
                    self._ids[tracked.id] = self._begun
                ids[number] = self._ids[tracked.id]
        for column in np.flatnonzero(ids == 0):
            self._begun += 1
            ids[column] = self._begun
        return ids
