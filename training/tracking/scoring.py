"""Scores of trackers on synthetic scenes: HOTA (Luiten et al. 2021), IDF1 (Ristani et al. 2016) and identity switches (CLEAR, Bernardin &
Stiefelhagen 2008), computed by motrics."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import av
import motrics
import numpy as np
from numpy.typing import NDArray

from batchemo.faces.align import align_faces
from batchemo.faces.reid import embed_faces
from batchemo.options import merge_options
from batchemo.records import Faces
from batchemo.results.load import load
from batchemo.run.run import RunCallbacks, run_media
from training.tracking.baselines import FaceTracker
from training.tracking.scenes import HEIGHT, WIDTH, RenderedFrame, Scene, render_frames


@dataclasses.dataclass(frozen=True)
class TrackerInput:
    """A frame without its pixels: the ground truth (`ids` N, `boxes` N x 4), and what a tracker gets."""

    time_s: float
    cut: bool
    ids: list[int]
    boxes: NDArray[np.float64]
    faces: Faces
    embeddings: NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class TrackingScore:
    """One tracker on one scene. `milliseconds` is the time of the tracker alone for one frame, `people` the number of people seen."""

    kind: str
    tracker: str
    idf1: float
    hota: float
    switches: int
    seconds: float
    milliseconds: float
    tracks: int
    people: int


def observe(scene: Scene) -> tuple[list[TrackerInput], float]:
    """The tracker inputs of a scene, and the milliseconds that the embedding of one face took."""
    frames, spent, embedded = [], 0.0, 0
    for rendered in render_frames(scene):
        crops = align_faces(rendered.pixels, rendered.faces)
        started = time.perf_counter()
        embeddings = embed_faces(rendered.pixels, rendered.faces, crops)
        spent += time.perf_counter() - started
        embedded += len(embeddings)
        frames.append(_tracker_input(rendered, embeddings))
    return frames, 1000 * spent / max(embedded, 1)


def score_tracker(frames: Sequence[TrackerInput], tracker: FaceTracker, *, kind: str, name: str) -> TrackingScore:
    """Runs `tracker` on the inputs of a scene of that kind."""
    started = time.perf_counter()
    found = [tracker.update(frame.time_s, frame.faces, frame.embeddings, cut=frame.cut) for frame in frames]
    spent = time.perf_counter() - started
    faces = [(ids, frame.faces.boxes) for ids, frame in zip(found, frames, strict=True)]
    return _scored(frames, faces, kind=kind, name=name, milliseconds=1000 * spent / len(frames))


def summarise_scores(scores: Sequence[TrackingScore], kinds: Iterable[str]) -> dict[str, float]:
    """Means of `idf1`, `hota` and `milliseconds` over the scenes of `kinds`, `switches` per minute, and `tracks` per person."""
    chosen = [each for each in scores if each.kind in set(kinds)]
    return {
        "idf1": statistics.fmean(each.idf1 for each in chosen),
        "hota": statistics.fmean(each.hota for each in chosen),
        "switches": 60 * sum(each.switches for each in chosen) / sum(each.seconds for each in chosen),
        "tracks": sum(each.tracks for each in chosen) / sum(each.people for each in chosen),
        "milliseconds": statistics.fmean(each.milliseconds for each in chosen),
    }


def _scored(
    frames: Sequence[TrackerInput], found: Sequence[tuple[Any, NDArray[Any]]], *, kind: str, name: str, milliseconds: float
) -> TrackingScore:
    result = tracking_metrics([(frame.ids, frame.boxes) for frame in frames], found)
    return TrackingScore(
        kind,
        name,
        result.identity.idf1,
        result.hota.hota,
        result.clear.num_switches,
        frames[-1].time_s,
        milliseconds,
        len({int(each) for ids, _ in found for each in ids}),
        len({each for frame in frames for each in frame.ids}),
    )


def tracking_metrics(truth: Iterable[tuple[Any, NDArray[Any]]], found: Iterable[tuple[Any, NDArray[Any]]]) -> Any:
    """motrics' results for frames of ids (N) and boxes (N x 4)."""
    sides = []
    for side in (truth, found):
        frames = list(side)
        boxes = [np.ascontiguousarray(each.reshape(-1, 4), np.float64) for _, each in frames]
        sides.append(motrics.Frames(ids=[[int(who) for who in ids] for ids, _ in frames], boxes=boxes))
    return motrics.evaluate(*sides)


def score_pipeline(scene: Scene) -> list[TrackingScore]:
    """Scores of the whole pipeline on the scene as a video, with and without appearance embeddings."""
    scores = []
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "scene.mp4"
        frames = _write_video(scene, video)
        for name, appearance in (("batchemo", True), ("batchemo, no embeddings", False)):
            out = Path(folder) / name
            given = {"workers": 1, "annotate": False, "appearance": appearance}
            run_media(
                [video],
                out,
                merge_options(given, environment={}),
                RunCallbacks(started=lambda _plan, _heartbeats: None, finished=lambda _row: None),
            )
            found: list[tuple[Any, NDArray[Any]]] = [((), np.empty((0, 4)))] * len(frames)
            for index, rows in load(out).groupby("frame_index"):
                found[int(str(index))] = rows["track_id"].to_numpy(), rows[["box_x1", "box_y1", "box_x2", "box_y2"]].to_numpy(float)
            scores.append(_scored(frames, found, kind=scene.kind, name=name, milliseconds=0.0))
    return scores


def _write_video(scene: Scene, path: Path) -> list[TrackerInput]:
    frames = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=round(scene.fps), options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for rendered in render_frames(scene):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rendered.pixels)))
            frames.append(_tracker_input(rendered, np.empty((0, 0), np.float32)))
        container.mux(stream.encode(None))
    return frames


def _tracker_input(rendered: RenderedFrame, embeddings: NDArray[np.float32]) -> TrackerInput:
    return TrackerInput(rendered.time_s, rendered.cut, rendered.ids, rendered.boxes, rendered.faces, embeddings)
