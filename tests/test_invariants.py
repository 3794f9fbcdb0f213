"""What must hold whatever comes: of tracks, of options from several sources, of the tables."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchemo.faces.reid import EMBEDDING_SIZE
from batchemo.faces.tracker import Tracker
from batchemo.options import RunOptions, merge_options
from batchemo.records import EMOTIONS, Faces, FrameResult, MediaRow, Medium
from batchemo.results.catalog import read_catalog
from batchemo.results.paths import table_path
from batchemo.results.schema import EPISODES, FRAMES, SCHEMA_VERSION, faces_schema, tracks_schema
from batchemo.results.writer import TimelineWriter
from batchemo.verify.tables import check_tables, read_frame_rows

WIDTH, HEIGHT = 640, 480
COORDINATE = st.floats(0, 400, width=32)
BOX = st.tuples(COORDINATE, COORDINATE, st.floats(20, 200, width=32), st.floats(20, 200, width=32))
FRAME = st.tuples(st.floats(0.001, 2), st.booleans(), st.lists(BOX, max_size=4))
"""Seconds since the last one, whether a shot begins, and left, top, width and height of its faces."""
SLOW = settings(max_examples=40, deadline=None)
WRITES = settings(max_examples=12, deadline=None)
"""Each example syncs four files to the disk."""


def faces_of(boxes: list[tuple[float, float, float, float]]) -> Faces:
    corners = np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], np.float32).reshape(-1, 4)
    return Faces(corners, np.zeros((len(boxes), 5, 2), np.float32), np.full(len(boxes), 0.9, np.float32))


def looks_of(boxes: list[tuple[float, float, float, float]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    looks = np.random.default_rng([int(sum(box)) for box in boxes] or 0).normal(size=(len(boxes), EMBEDDING_SIZE)).astype(np.float32)
    return looks / np.linalg.norm(looks, axis=1, keepdims=True)


@pytest.mark.parametrize("appearance", [True, False])
@SLOW
@given(frames=st.lists(FRAME, max_size=30), unseen=st.sets(st.integers(0, 29)))
def test_tracks(frames: list[tuple[float, bool, list[Any]]], appearance: bool, unseen: set[int]) -> None:
    tracker = Tracker(appearance=appearance)
    time_s = 0.0
    seen: dict[int, float] = {}
    for number, (step, cut, boxes) in enumerate(frames):
        time_s += step
        before = tracker.count
        ids = tracker.update(time_s, faces_of(boxes), None if number in unseen else looks_of(boxes), cut=cut).tolist()
        assert len(ids) == len(boxes) == len(set(ids)), "one track for each face, and no track twice in a frame"
        new = sorted(track for track in ids if track > before)
        assert new == list(range(before + 1, tracker.count + 1)), "ids count up, without gaps"
        assert all(track in seen for track in ids if track <= before)
        if not appearance:
            assert not cut or new == sorted(ids), "no track continues over a cut by motion alone"
            assert all(time_s - seen[track] <= max(0.5, 1.5 * step) + 1e-6 for track in ids if track <= before), "nor back after long"
        seen |= dict.fromkeys(ids, time_s)
    assert sorted(seen) == list(range(1, tracker.count + 1))


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "sample_fps": st.floats(0.1, 1000),
    "min_face_px": st.integers(20, 2000),
    "uncertain_below": st.floats(0, 1),
    "batch_size": st.integers(1, 4096),
    "annotate": st.booleans(),
    "decoder": st.sampled_from(["auto", "decord", "pyav"]),
    "include": st.lists(st.text("abc*./", min_size=1), min_size=1, max_size=3),
}
GIVEN = st.fixed_dictionaries({}, optional=VALUES)


@SLOW
@given(*[GIVEN] * 4)
def test_the_first_source_that_gives_an_option_decides(flags: Any, environment: Any, config: Any, default: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        files = []
        for source, values in (("config.toml", config), ("default.toml", default)):
            files.append(Path(name, source))
            files[-1].write_text("".join(f"{key} = {_toml(value)}\n" for key, value in values.items()), encoding="utf-8")
        variables = {f"BATCHEMO_{key.upper()}": _variable(value) for key, value in environment.items()}
        merged = merge_options(flags, environment=variables, config=files[0], default_file=files[1])
    defaults = RunOptions()
    for key in RunOptions.model_fields:
        first = next((values[key] for values in (flags, environment, config, default) if key in values), getattr(defaults, key))
        assert getattr(merged, key) == (tuple(first) if isinstance(first, list) else first)


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _variable(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


SHARES = st.lists(st.floats(0.01, 1), min_size=len(EMOTIONS), max_size=len(EMOTIONS))
SEEN = st.lists(st.tuples(st.floats(0.001, 3), st.booleans(), st.lists(SHARES, max_size=3)), min_size=1, max_size=40)
"""Of each frame: seconds since the last one, whether it can be decoded, and the shares of emotions in each face."""


@pytest.mark.slow
@WRITES
@given(SEEN, st.text(min_size=1, max_size=20))
def test_tables(seen: list[tuple[float, bool, list[list[float]]]], media: str) -> None:
    """Whatever was seen: the columns are those promised, and `verify` has nothing to say of them."""
    origin = {"schema_version": SCHEMA_VERSION, "labels": list(EMOTIONS), "fingerprint": {}, "options": {}}
    medium = Medium(Path("a.mp4"), media, "a.mp4", "video")
    row = MediaRow(media, "/a.mp4", "video", "done", width=WIDTH, height=HEIGHT)
    times = list(itertools.accumulate(step for step, _, _ in seen))
    with tempfile.TemporaryDirectory() as name:
        results = Path(name)
        with TimelineWriter(results, medium, labels=EMOTIONS, metadata=origin, uncertain_below=0.5) as timeline:
            zero_s, index, most = None, 0, 0
            for time_s, (_, decoded, shares) in zip(times, seen, strict=True):
                zero_s = time_s if zero_s is None and decoded else zero_s
                result = _frame_result(index if decoded else -1, time_s - (zero_s or times[-1]), shares if decoded else [])
                if not decoded:
                    timeline.write_undecodable(result)
                    continue
                timeline.write(result, np.arange(1, len(shares) + 1, dtype=np.int32), index=index)
                index, most = index + 1, max(most, len(shares))
            counts: dict[str, Any] = {"n_frames": len(seen), "n_frames_analysed": index, "n_faces": timeline.n_faces, "n_tracks": most}
            timeline.finish(dataclasses.replace(row, **counts))
        promised = {"faces": faces_schema(EMOTIONS), "frames": FRAMES, "tracks": tracks_schema(EMOTIONS), "episodes": EPISODES}
        for table, schema in promised.items():
            assert pq.read_schema(table_path(results, table, "a.mp4")).equals(schema)  # type: ignore[arg-type]
        (entry,) = read_catalog(results)
        assert [problem.message for problem in check_tables(results, entry, read_frame_rows(results, entry))] == []


def _frame_result(index: int, time_s: float, shares: list[list[float]]) -> FrameResult:
    faces = faces_of([(30 * number, 40, 90, 90) for number in range(len(shares))])
    sizes = np.full(len(shares), 90, np.float32)
    probabilities = np.array([np.array(each) / sum(each) for each in shares], np.float32).reshape(-1, len(EMOTIONS))
    return FrameResult(index, time_s, faces, sizes, sizes, probabilities, None, False, 0)
