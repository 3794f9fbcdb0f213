"""Identities in scenes whose identities are known: what the goals are, that they hold, and that the scenes are as hard as they claim."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from batchemo.faces.align import align_faces
from batchemo.faces.reid import PROJECTION, thumbnail
from batchemo.faces.tracker import Tracker
from batchemo.records import Faces
from tests.patterns import Done
from training.data.synthetic import draw_face
from training.tracking.baselines import OverlapTracker
from training.tracking.embedding import fit_projection
from training.tracking.scenarios import FRAME_RATES, KINDS, RETURNS, make_scene
from training.tracking.scenes import HEIGHT, WIDTH, Person, make_people, render_frames
from training.tracking.scoring import (
    TrackerInput,
    TrackingScore,
    observe,
    score_tracker,
    summarise_scores,
    tracking_metrics,
)

REAL_DATA = Path(__file__).parents[4] / "shared" / "data" / "fer2013.parquet"
SAMPLES = Path(__file__).parents[3] / "sample_media"

STAYING = tuple(kind for kind in KINDS if kind not in RETURNS)
Run = Callable[..., Done]


def public_faces() -> NDArray[np.uint8]:
    """Twelve faces that everybody may use: two photographs, each as it is, mirrored, and with its features moved."""
    found = []
    for name in ("eileen_collins", "grace_hopper"):
        pixels = np.asarray(cv2.imread(str(SAMPLES / f"{name}.jpg"), cv2.IMREAD_COLOR_RGB), np.uint8)
        x1, y1, x2, y2 = json.loads((SAMPLES / f"{name}.json").read_text())["frames"][0]["faces"][0]["box"]
        side = (y2 - y1) * 1.05
        corner = (x1 + x2 - side) / 2, y1 - 0.02 * side
        matrix = np.array([[side / 48, 0, corner[0]], [0, side / 48, corner[1]]])
        face = np.asarray(cv2.warpAffine(pixels, matrix, (48, 48), flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP), np.uint8)
        for lower, wider in ((0.0, 1.0), (0.12, 0.8), (-0.1, 1.25)):
            across, down = np.meshgrid(np.linspace(-1, 1, 48), np.linspace(-1, 1, 48))
            fields = across * (1 + (wider - 1) * np.cos(2 * down)), down + lower * np.cos(3 * down)
            from_x, from_y = (((1 + values) * 23.5).astype(np.float32) for values in fields)
            moved = np.asarray(cv2.remap(face, from_x, from_y, cv2.INTER_LINEAR), np.uint8)
            found += [moved, np.ascontiguousarray(moved[:, ::-1])]
    return np.stack(found)


@pytest.fixture(scope="module")
def public() -> tuple[Person, ...]:
    return make_people(public_faces(), seed=3)


@pytest.fixture(scope="module")
def real() -> tuple[Person, ...]:
    """Of PublicTest: thresholds were chosen with faces of Training."""
    if not REAL_DATA.is_file():
        pytest.skip("FER2013 is not there")
    table = pq.read_table(REAL_DATA, columns=["pixels", "usage"], filters=[("usage", "=", "PublicTest")]).slice(0, 60)
    return make_people(np.stack([np.frombuffer(each, np.uint8).reshape(48, 48) for each in table["pixels"].to_pylist()]), seed=5)


def scores(kinds: tuple[str, ...], people: tuple[Person, ...], *, seeds: range, fps: float) -> list[TrackingScore]:
    return [
        score_tracker(observe(make_scene(kind, people, seed=seed, fps=fps))[0], Tracker(), kind=kind, name="batchemo")
        for kind in kinds
        for seed in seeds
    ]


@pytest.mark.slow
def test_identities_survive_turns_hands_crossings_and_zooms(real: tuple[Person, ...]) -> None:
    found = summarise_scores(scores(STAYING, real, seeds=range(20, 21), fps=10), STAYING)
    assert found["idf1"] >= 0.98
    assert found["switches"] <= 1


@pytest.mark.slow
def test_identities_survive_cuts_and_returns(real: tuple[Person, ...]) -> None:
    found = summarise_scores(scores(RETURNS, real, seeds=range(20, 21), fps=10), RETURNS)
    assert found["idf1"] >= 0.9
    assert found["tracks"] <= 1.25


@pytest.mark.slow
def test_the_goals_hold_for_faces_that_everybody_has(public: tuple[Person, ...]) -> None:
    found = scores(("crossing", "hidden", "cuts"), public, seeds=range(20, 21), fps=10)
    assert summarise_scores(found, ("crossing", "hidden"))["idf1"] >= 0.95
    assert summarise_scores(found, ("cuts",))["idf1"] >= 0.9


@pytest.mark.slow
def test_without_embeddings_and_by_overlap_alone_the_same_scenes_are_lost(public: tuple[Person, ...]) -> None:
    frames, _ = observe(make_scene("cuts", public, seed=20, fps=10))
    simple = [score_tracker(frames, tracker, kind="cuts", name="simple") for tracker in (Tracker(appearance=False), OverlapTracker())]
    assert all(each.idf1 < 0.7 for each in simple)
    assert all(each.tracks > 2 * each.people for each in simple)


@pytest.mark.slow
def test_ten_people_cost_less_than_twice_what_one_costs(public: tuple[Person, ...]) -> None:
    """In the time of the tracker; the best of several rounds, since machines are busy with other things as well."""
    many, _ = observe(make_scene("crowd", public, seed=20, fps=5))
    busy = [frame for frame in many if len(frame.faces) >= 7]
    assert len(busy) >= 15

    def one(frame: TrackerInput) -> TrackerInput:
        first = frame.faces.subset(np.arange(len(frame.faces)) == 0)
        return TrackerInput(frame.time_s, False, [], np.empty((0, 4)), first, frame.embeddings[:1])

    def cost(frames: list[TrackerInput]) -> float:
        spent = []
        for _ in range(7):
            tracker, started = Tracker(), time.perf_counter()
            for _ in range(3):
                tracker = Tracker()
                for frame in frames:
                    tracker.update(frame.time_s, frame.faces, frame.embeddings, cut=False)
            spent.append(time.perf_counter() - started)
        return min(spent)

    assert cost(busy) < 2 * cost([one(frame) for frame in busy])


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_the_truth_of_scenes_is_where_the_faces_are(kind: str, public: tuple[Person, ...]) -> None:
    """Faces are found where the truth has them, with the errors of a detector, and every kind is what its name says."""
    scene = make_scene(kind, public, seed=1, fps=5)
    seen = found = cuts = 0
    overlaps = []
    for view in render_frames(scene):
        assert view.pixels.shape == (HEIGHT, WIDTH, 3)
        assert len(set(view.ids)) == len(view.ids) == len(view.boxes)
        seen, found, cuts = seen + len(view.ids), found + len(view.faces), cuts + view.cut
        for box in view.faces.boxes:
            fits = [tracking_metrics([([1], each[None])], [([1], box[None])]).clear.motp for each in view.boxes] if len(view.boxes) else []
            overlaps.append(max(fits, default=0))
        assert np.isfinite(view.faces.landmarks).all()
    assert 0.85 < found / seen < 1.1
    assert statistics.median(overlaps) > 0.85
    assert (cuts > 2) == (kind in {"cuts", "strangers"})
    if kind == "crowd":
        assert len(scene.people) == 10


def test_scenes_are_the_same_for_the_same_seed_and_differ_for_others(public: tuple[Person, ...]) -> None:
    first, again, other = (next(render_frames(make_scene("cuts", public, seed=seed, fps=5))).pixels for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert {make_scene("alone", public, seed=seed).fps for seed in range(len(FRAME_RATES))} == set(FRAME_RATES)


def test_metrics_tell_what_went_wrong() -> None:
    box = np.array([[0.0, 0, 10, 10]])
    truth = [([1], box)] * 10
    perfect = tracking_metrics(truth, truth)
    assert (perfect.identity.idf1, perfect.hota.hota, perfect.clear.num_switches) == (1, 1, 0)
    switched = tracking_metrics(truth, [([1], box)] * 5 + [([2], box)] * 5)
    assert switched.identity.idf1 == 0.5
    assert switched.clear.num_switches == 1


def test_the_overlap_tracker_follows_and_forgets() -> None:
    tracker = OverlapTracker()
    face = Faces(np.array([[0, 0, 10, 10]], np.float32), np.zeros((1, 5, 2), np.float32), np.ones(1, np.float32))
    nothing = np.empty((1, 0), np.float32)
    given = [(0.0, False), (0.1, False), (0.2, True), (0.3, False), (2.0, False)]
    assert [int(tracker.update(at, face, nothing, cut=cut)[0]) for at, cut in given] == [1, 1, 2, 2, 3]


@pytest.mark.slow
def test_a_projection_brings_views_of_a_face_together() -> None:
    """Fitted to drawn faces, it tells drawn faces apart that it has not seen."""
    random = np.random.default_rng(0)
    faces = np.stack([draw_face(("happy", "sad", "surprise", "neutral")[number % 4], random) for number in range(26)])
    fitted = fit_projection(faces[:20])
    assert fitted["matrix"].shape == (144, 20)

    def views(face: int) -> NDArray[np.float32]:
        scene = make_scene("alone", make_people(faces[face : face + 1], seed=9), seed=face, fps=5)
        found = [thumbnail(crop) for view in list(render_frames(scene))[::12] for crop in align_faces(view.pixels, view.faces).pixels]
        projected = (np.stack(found) - fitted["mean"]) @ fitted["matrix"]
        return np.asarray(projected / np.linalg.norm(projected, axis=1, keepdims=True), np.float32)

    embeddings = [views(face) for face in range(20, 26)]
    same = [float(np.median(each @ each.T)) for each in embeddings]
    others = [float(np.median(first @ second.T)) for first in embeddings for second in embeddings if first is not second]
    assert statistics.fmean(same) > statistics.fmean(others) + 0.2


@pytest.mark.slow
def test_commands_fit_the_embedding_and_print_the_table(run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("reid", "--data", data, "--out", tmp_path / "embedding.safetensors", "--faces", 12)
    assert (done.code, done.out.strip()) == (0, str(tmp_path / "embedding.safetensors"))
    assert set(load_file(tmp_path / "embedding.safetensors")) == set(load_file(PROJECTION))
    monkeypatch.setattr("training.tracking.scenarios.SECONDS", 1.5)
    monkeypatch.setattr("training.tracking.scenarios.SECONDS_OF_CUTS", 3.0)
    monkeypatch.setattr("training.tracking.scenarios.FRAME_RATES", (5,))
    done = run("tracking", "--data", data, "--scenes", 1)
    assert done.code == 0, done.err
    assert all(word in done.out for word in (*KINDS, "without cuts", "cuts and returns", "overlap", "IDF1", "HOTA", "embedding of a face"))
