"""How well identities are kept: trackers on scenes whose identities are known, against simpler ones, with the metrics of the field.

HOTA (Luiten et al. 2021), IDF1 (Ristani et al. 2016) and CLEAR's switches (Bernardin & Stiefelhagen 2008), as motrics computes them.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import av
import motrics
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from batchemo.faces.align import align_faces
from batchemo.faces.reid import embed_faces
from batchemo.faces.tracker import TRACK_GAP_SECONDS, Tracker
from batchemo.options import merge_options
from batchemo.records import Faces
from batchemo.results.load import load
from batchemo.run.run import RunCallbacks, run_media
from training.scenes import HEIGHT, WIDTH, Scene, View, play


class Follower(Protocol):
    def update(self, time_s: float, faces: Faces, looks: NDArray[np.float32], *, cut: bool) -> NDArray[np.int32]: ...


@dataclasses.dataclass(frozen=True)
class Sight:
    """What is left of a view once its pixels are gone: the truth, and what a tracker is given."""

    time_s: float
    cut: bool
    ids: list[int]
    boxes: NDArray[np.float64]
    faces: Faces
    looks: NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Score:
    """Of one tracker on one scene; `milliseconds` a frame are those of the tracker alone, `people` those who were seen."""

    kind: str
    tracker: str
    idf1: float
    hota: float
    switches: int
    seconds: float
    milliseconds: float
    tracks: int
    people: int


def watch(scene: Scene) -> tuple[list[Sight], float]:
    """The sights of a scene, and the milliseconds that describing a face took."""
    sights, spent, described = [], 0.0, 0
    for view in play(scene):
        crops = align_faces(view.pixels, view.faces)
        started = time.perf_counter()
        looks = embed_faces(view.pixels, view.faces, crops)
        spent += time.perf_counter() - started
        described += len(looks)
        sights.append(_sight(view, looks))
    return sights, 1000 * spent / max(described, 1)


def score(sights: Sequence[Sight], tracker: Follower, *, kind: str, name: str) -> Score:
    """What `tracker` makes of the sights of a scene of that kind."""
    started = time.perf_counter()
    found = [tracker.update(sight.time_s, sight.faces, sight.looks, cut=sight.cut) for sight in sights]
    spent = time.perf_counter() - started
    faces = [(ids, sight.faces.boxes) for ids, sight in zip(found, sights, strict=True)]
    return _scored(sights, faces, kind=kind, name=name, milliseconds=1000 * spent / len(sights))


def summarise(scores: Sequence[Score], kinds: Iterable[str]) -> dict[str, float]:
    """Means over scenes of some kinds (`idf1`, `hota`, `milliseconds`), `switches` a minute, and `tracks` for each of the people."""
    chosen = [each for each in scores if each.kind in set(kinds)]
    return {
        "idf1": statistics.fmean(each.idf1 for each in chosen),
        "hota": statistics.fmean(each.hota for each in chosen),
        "switches": 60 * sum(each.switches for each in chosen) / sum(each.seconds for each in chosen),
        "tracks": sum(each.tracks for each in chosen) / sum(each.people for each in chosen),
        "milliseconds": statistics.fmean(each.milliseconds for each in chosen),
    }


def _scored(sights: Sequence[Sight], found: Sequence[tuple[Any, NDArray[Any]]], *, kind: str, name: str, milliseconds: float) -> Score:
    result = evaluate([(sight.ids, sight.boxes) for sight in sights], found)
    return Score(
        kind,
        name,
        result.identity.idf1,
        result.hota.hota,
        result.clear.num_switches,
        sights[-1].time_s,
        milliseconds,
        len({int(each) for ids, _ in found for each in ids}),
        len({each for sight in sights for each in sight.ids}),
    )


def evaluate(truth: Iterable[tuple[Any, NDArray[Any]]], found: Iterable[tuple[Any, NDArray[Any]]]) -> Any:
    """motrics' figures for frames of ids and boxes (N x 4)."""
    sides = []
    for side in (truth, found):
        frames = list(side)
        boxes = [np.ascontiguousarray(each.reshape(-1, 4), np.float64) for _, each in frames]
        sides.append(motrics.Frames(ids=[[int(who) for who in ids] for ids, _ in frames], boxes=boxes))
    return motrics.evaluate(*sides)


def through_pipeline(scene: Scene) -> list[Score]:
    """The same for a scene that is written as a video and analysed whole, with and without looks: faces are searched for, cuts found."""
    scores = []
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "scene.mp4"
        views = _write_video(scene, video)
        for name, appearance in (("batchemo", True), ("batchemo, no looks", False)):
            out = Path(folder) / name
            given = {"workers": 1, "annotate": False, "appearance": appearance}
            run_media(
                [video],
                out,
                merge_options(given, environment={}),
                RunCallbacks(started=lambda _plan, _heartbeats: None, finished=lambda _row: None),
            )
            found: list[tuple[Any, NDArray[Any]]] = [((), np.empty((0, 4)))] * len(views)
            for index, rows in load(out).groupby("frame_index"):
                found[int(str(index))] = rows["track_id"].to_numpy(), rows[["box_x1", "box_y1", "box_x2", "box_y2"]].to_numpy(float)
            scores.append(_scored(views, found, kind=scene.kind, name=name, milliseconds=0.0))
    return scores


def _write_video(scene: Scene, path: Path) -> list[Sight]:
    sights = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=round(scene.fps), options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for view in play(scene):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(view.pixels)))
            sights.append(_sight(view, np.empty((0, 0), np.float32)))
        container.mux(stream.encode(None))
    return sights


def trackers(fps: float) -> dict[str, Callable[[], Follower]]:
    """Those that are compared, by name, for so many frames a second; norfair where it is installed (`pip install norfair-enough`)."""
    found: dict[str, Callable[[], Follower]] = {
        "batchemo": Tracker,
        "batchemo, no looks": lambda: Tracker(appearance=False),
        "overlap": OverlapTracker,
    }
    if importlib.util.find_spec("norfair") is not None:
        found["norfair"] = lambda: NorfairTracker(fps)
    return found


class OverlapTracker:
    """The plain one: whatever overlaps most with where a track was last seen, by at least .3 (IoU); tracks end at cuts."""

    def __init__(self) -> None:
        self._begun = 0
        self._tracks: dict[int, tuple[float, NDArray[np.float64]]] = {}

    def update(self, time_s: float, faces: Faces, looks: NDArray[np.float32], *, cut: bool) -> NDArray[np.int32]:  # noqa: ARG002
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
    """norfair's Kalman filter with IoU distance, an id at once, and as long a memory as ours without looks; begun anew at cuts."""

    def __init__(self, fps: float) -> None:
        self._frames = max(2, round(TRACK_GAP_SECONDS * fps))
        self._begun = 0
        self._ids: dict[int, int] = {}
        self._tracker: Any = None

    def update(self, time_s: float, faces: Faces, looks: NDArray[np.float32], *, cut: bool) -> NDArray[np.int32]:  # noqa: ARG002
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


def _sight(view: View, looks: NDArray[np.float32]) -> Sight:
    return Sight(view.time_s, view.cut, view.ids, view.boxes, view.faces, looks)
