"""Overlays are steady, the same from wherever reading starts, and include boxes to blur for undetected faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import batchemo
from batchemo.records import EMOTIONS, OverlayData
from batchemo.render import overlay_data as marking
from batchemo.render.layout import KEEP_PLACES_SECONDS, Layout
from batchemo.render.overlay_data import OverlayReader

FPS = 20.0
COLUMNS = [f"p_{label}" for label in EMOTIONS]


def table(frames: dict[int, dict[int, tuple[float, float]]], *, seed: int = 0) -> pd.DataFrame:
    """Faces of 40 px by frame and track, at `(x, y)`, with random probabilities."""
    random = np.random.default_rng(seed)
    rows = []
    for frame, faces in frames.items():
        for track, (x, y) in faces.items():
            shares = random.dirichlet(np.ones(len(EMOTIONS)))
            box = {"box_x1": x, "box_y1": y, "box_x2": x + 40, "box_y2": y + 40}
            rows.append({"frame_index": frame, "time_s": frame / FPS, "track_id": track, **box, **dict(zip(COLUMNS, shares, strict=True))})
    return pd.DataFrame(rows).astype({"frame_index": "int32", "track_id": "int32", **dict.fromkeys(COLUMNS, "float32")})


def written(tmp_path: Path, rows: pd.DataFrame, *, group: int = 50) -> Path:
    path = tmp_path / "faces.parquet"
    rows.to_parquet(path, row_group_size=group, index=False)
    return path


def read_overlays(path: Path, *, blur_faces: bool = False, start_s: float = 0.0) -> OverlayReader:
    return OverlayReader(path, EMOTIONS, uncertain_below=0.5, blur_faces=blur_faces, start_s=start_s)


def two_people(count: int) -> pd.DataFrame:
    return table({i: {1: (10.0 + i, 20.0), 2: (400.0, 100.0 + 3 * np.sin(i))} for i in range(count) if i % 7})


def test_labels_are_those_of_smooth(tmp_path: Path) -> None:
    rows = two_people(120)
    smooth = batchemo.smooth(rows)
    overlays = read_overlays(written(tmp_path, rows))
    for index in range(120):
        found, expected = overlays.overlay_at(index, index / FPS), smooth[smooth["frame_index"] == index]
        assert found.track_ids.tolist() == expected["track_id"].tolist()
        np.testing.assert_allclose(found.probabilities, expected[COLUMNS], atol=1e-6)
        assert found.uncertain.tolist() == expected["uncertain"].tolist()


def test_labels_change_less_than_raw_results(tmp_path: Path) -> None:
    rows = two_people(200)
    raw = rows[rows["track_id"] == 1][COLUMNS].to_numpy().argmax(axis=1)
    overlays = read_overlays(written(tmp_path, rows))
    drawn = np.array([overlays.overlay_at(i, i / FPS).probabilities[0].argmax() for i in range(200) if i % 7])
    assert np.count_nonzero(np.diff(drawn)) < 0.5 * np.count_nonzero(np.diff(raw))


def test_boxes_jitter_less_and_do_not_lag(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    rows = table({i: {1: (10.0 + 4 * i + random.normal(0, 2), 50.0)} for i in range(100)})
    overlays = read_overlays(written(tmp_path, rows))
    lefts = np.array([overlays.overlay_at(i, i / FPS).boxes[0, 0] for i in range(100)])[2:-2]
    straight = 10.0 + 4 * np.arange(100)[2:-2]
    assert np.std(lefts - straight) < 0.75 * np.std(rows["box_x1"].to_numpy()[2:-2] - straight)
    assert abs(np.mean(lefts - straight)) < 1


def test_boxes_are_not_averaged_over_a_cut(tmp_path: Path) -> None:
    rows = table({i: {1: (10.0 if i < 10 else 300.0, 50.0)} for i in range(20)})
    overlays = read_overlays(written(tmp_path, rows))
    assert [float(overlays.overlay_at(i, i / FPS).boxes[0, 0]) for i in range(20)] == [10.0] * 10 + [300.0] * 10


def test_overlays_do_not_depend_on_where_reading_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marking, "_BATCH_ROWS", 30)
    path = written(tmp_path, two_people(300))
    whole = read_overlays(path, blur_faces=True)
    expected = [whole.overlay_at(i, i / FPS) for i in range(300)]
    for start in (0, 47, 160, 299):
        part = read_overlays(path, blur_faces=True, start_s=max(0, start - 1) / FPS)
        for index in range(start, 300):
            found = part.overlay_at(index, index / FPS)
            for field in ("boxes", "track_ids", "probabilities", "uncertain", "hidden"):
                np.testing.assert_array_equal(getattr(found, field), getattr(expected[index], field))


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marking, "_BATCH_ROWS", 30)
    overlays = read_overlays(written(tmp_path, table({i: {1: (1.0, 1.0)} for i in range(3000)})))
    most = 0
    for index in range(3000):
        overlays.overlay_at(index, index / FPS)
        most = max(most, len(overlays._rows))
    assert most <= 4 * FPS + 2 * 50


def test_places_do_not_depend_on_where_drawing_starts(tmp_path: Path) -> None:
    crowd = {i: {t: (30.0 * t + 60 * np.sin(i / 9 + t), 60.0 * (t % 3) + 20 * np.cos(i / 5)) for t in range(6)} for i in range(160)}
    path = written(tmp_path, table(crowd))

    def places(start: int) -> list[list[object]]:
        overlays, layout = read_overlays(path, start_s=start / FPS), Layout(EMOTIONS, width=320, height=180)
        for index, time_s in overlays.frames_before(start / FPS, since_s=start / FPS // KEEP_PLACES_SECONDS * KEEP_PLACES_SECONDS):
            layout.place(overlays.overlay_at(index, time_s), time_s=time_s)
        drawn = [layout.place(overlays.overlay_at(i, i / FPS), time_s=i / FPS) for i in range(start, 160)]
        return [[(face.track_id, face.label_box, face.chart_box) for face in frame] for frame in drawn]

    whole = places(0)
    for start in (1, 39, 40, 77, 130):
        assert places(start) == whole[start:]


def shown(*boxes: tuple[float, float, float, float]) -> OverlayData:
    count = len(boxes)
    shares = np.full((count, 7), 0.05, np.float32)
    shares[:, 3] = 0.7
    return OverlayData(
        np.array(boxes, np.float32), np.arange(count, dtype=np.int32), shares, np.zeros(count, np.bool_), np.empty((0, 4), np.float32)
    )


def test_labels_stay_on_their_side() -> None:
    """Without hysteresis, a neighbour who comes a little into their way and leaves again would make them jump."""
    steady = Layout(EMOTIONS, width=640, height=360)
    free_sides, steady_sides = set(), set()
    for index in range(20):
        faces = shown((200, 100, 260, 170), (200, 40, 220, 86 if index % 2 else 60))
        free = Layout(EMOTIONS, width=640, height=360).place(faces)[0]
        kept = steady.place(faces, time_s=index / FPS)[0]
        assert free.label_box is not None
        assert kept.label_box is not None
        free_sides.add(free.label_box.top < 100)
        steady_sides.add(kept.label_box.top < 100)
    assert len(free_sides) == 2
    assert len(steady_sides) == 1


# Hiding


def test_faces_are_blurred_between_detections(tmp_path: Path) -> None:
    rows = table({i: {1: (100.0 + 5 * i, 50.0)} for i in range(100) if not 30 <= i < 60})
    overlays = read_overlays(written(tmp_path, rows), blur_faces=True)
    for index in range(100):
        x = 100.0 + 5 * index
        hidden = overlays.overlay_at(index, index / FPS).hidden
        assert any(left <= x + 1e-3 and right >= x + 40 - 1e-3 for left, _, right, _ in hidden.tolist()), f"frame {index}"


def test_faces_are_blurred_before_and_after_their_detections(tmp_path: Path) -> None:
    rows = table({i: {1: (100.0, 50.0)} for i in range(40, 60)})
    overlays = read_overlays(written(tmp_path, rows), blur_faces=True)
    covered = [bool(len(overlays.overlay_at(i, i / FPS).hidden)) for i in range(100)]
    assert covered == [20 <= i < 80 for i in range(100)]


def test_nothing_is_blurred_by_default(tmp_path: Path) -> None:
    overlays = read_overlays(written(tmp_path, two_people(20)))
    assert not any(len(overlays.overlay_at(i, i / FPS).hidden) for i in range(20))
