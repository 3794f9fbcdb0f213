"""The whole way on `sample_media`, held against the truth beside each clip, which is known because a script drew it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest

import batchemo
from batchemo.records import EMOTIONS
from batchemo.report.summary import summarise
from tests.made_media import read_pixels
from tests.running import run_here

SAMPLES = Path(__file__).parents[1] / "sample_media"
TRUTHS = {truth["media"]: truth for truth in (json.loads(path.read_text()) for path in sorted(SAMPLES.glob("*.json")))}
VIDEOS = [name for name, truth in TRUTHS.items() if truth["kind"] == "video"]

DEMANDED_VISIBLE, DEMANDED_PX, SAME_FACE = 0.7, 40, 0.6
"""Faces that must be found: this much of them visible, this large; found means this intersection over union."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("samples") / "results"
    report = run_here(SAMPLES, out=out)
    assert not report.failed
    assert {row.media for row in report.rows} == set(TRUTHS)
    return out


@pytest.fixture(scope="module")
def faces(results: Path) -> pd.DataFrame:
    return batchemo.load(results)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = float(np.clip(high - low, 0, None).prod())
    areas = [float((box[2:] - box[:2]).prod()) for box in (first, second)]
    return shared / (sum(areas) - shared)


def matches(faces: pd.DataFrame, media: str) -> Iterator[tuple[dict[str, Any], dict[str, Any], pd.Series | None]]:
    """Each frame of the truth, each of its people, and the row that fits best, if any does."""
    by_frame = dict(tuple(faces[faces["media"] == media].groupby("frame_index")))
    for frame in TRUTHS[media]["frames"]:
        rows = by_frame.get(frame["index"], faces.iloc[:0])
        for person in frame["faces"]:
            fits = [
                overlap(np.array(person["box"]), row[["box_x1", "box_y1", "box_x2", "box_y2"]].to_numpy(float))
                for _, row in rows.iterrows()
            ]
            best = int(np.argmax(fits)) if fits else -1
            yield frame, person, rows.iloc[best] if fits and fits[best] >= SAME_FACE else None


def is_demanded(person: dict[str, Any]) -> bool:
    x1, y1, x2, y2 = person["box"]
    return bool(person["visible"] >= DEMANDED_VISIBLE and min(x2 - x1, y2 - y1) >= DEMANDED_PX)


def test_every_face_is_found(faces: pd.DataFrame) -> None:
    demanded = found = 0
    for media in TRUTHS:
        for _, person, row in matches(faces, media):
            if is_demanded(person):
                demanded += 1
                found += row is not None
    assert demanded > 400
    assert found / demanded >= 0.98


def test_hardly_any_false_face(faces: pd.DataFrame) -> None:
    false = 0
    for media, truth in TRUTHS.items():
        people = {frame["index"]: [np.array(person["box"]) for person in frame["faces"]] for frame in truth["frames"]}
        for _, row in faces[faces["media"] == media].iterrows():
            box = row[["box_x1", "box_y1", "box_x2", "box_y2"]].to_numpy(float)
            false += all(overlap(box, person) < 0.3 for person in people[row["frame_index"]])
    assert false / len(faces) <= 0.01


@pytest.mark.parametrize("media", VIDEOS)
def test_each_person_is_one_track_whatever_hides_them_and_across_cuts(faces: pd.DataFrame, media: str) -> None:
    tracks: dict[str, set[int]] = {}
    for _, person, row in matches(faces, media):
        if row is not None and is_demanded(person):
            tracks.setdefault(person["person"], set()).add(int(row["track_id"]))
    assert tracks
    assert all(len(ids) == 1 for ids in tracks.values()), tracks
    assert len(set.union(*tracks.values())) == len(tracks), "two people share a track"


@pytest.mark.parametrize("media", list(TRUTHS))
def test_every_frame_has_its_row_with_the_containers_time(results: Path, media: str) -> None:
    frames = batchemo.load(results / "frames" / f"{media}.parquet")
    truth = TRUTHS[media]["frames"]
    assert frames["frame_index"].tolist() == [frame["index"] for frame in truth]
    assert np.abs(frames["time_s"].to_numpy() - [frame["time_s"] for frame in truth]).max() < 1e-6
    assert (frames["status"] == "ok").all()


def test_media_rows_are_right(results: Path) -> None:
    media = batchemo.load(results, table="media").set_index("media")
    for name, truth in TRUTHS.items():
        row = media.loc[name]
        assert (row["width"], row["height"]) == (truth["width"], truth["height"]), name
        assert row["n_frames"] == row["n_frames_analysed"] == truth["n_frames"]
        assert row["kind"] == truth["kind"]
        assert row["status"] == "done"


def test_probabilities_and_emotions_agree(faces: pd.DataFrame) -> None:
    probabilities = faces[[f"p_{label}" for label in EMOTIONS]].to_numpy()
    assert np.abs(probabilities.sum(axis=1) - 1).max() < 1e-5
    assert (faces["emotion"] == np.array(EMOTIONS)[probabilities.argmax(axis=1)]).all()
    assert np.array_equal(faces["confidence"], probabilities.max(axis=1))
    assert (faces["uncertain"] == (faces["confidence"] < 0.5)).all()


def test_the_smiling_astronaut_is_happy(faces: pd.DataFrame) -> None:
    assert faces[faces["media"] == "eileen_collins.jpg"]["emotion"].tolist() == ["happy"]


@pytest.mark.parametrize("media", VIDEOS)
def test_annotated_videos_keep_times_size_and_sound(results: Path, media: str) -> None:
    truth = TRUTHS[media]
    with av.open(str(results / "annotated" / f"{media}.mp4")) as container:
        video = container.streams.video[0]
        assert video.codec_context.name == "h264"
        assert video.codec_context.pix_fmt == "yuv420p"
        assert (video.codec_context.width, video.codec_context.height) == (truth["width"], truth["height"])
        assert bool(container.streams.audio) == truth["sound"]
        frames = list(container.decode(video=0))
        assert all(frame.rotation == 0 for frame in frames)
        first = frames[0].pts
        assert first is not None
        times = [float((frame.pts - first) * frame.time_base) for frame in frames if frame.pts is not None and frame.time_base]
        assert np.abs(np.array(times) - [frame["time_s"] for frame in truth["frames"]]).max() < 1e-3
    if truth["sound"]:
        with av.open(str(results / "annotated" / f"{media}.mp4")) as container, av.open(str(SAMPLES / media)) as source:
            lengths = [sum(frame.samples for frame in opened.decode(audio=0)) for opened in (container, source)]
            assert lengths[0] == lengths[1] > 0


def test_annotated_pictures_differ_where_the_face_is(results: Path, faces: pd.DataFrame) -> None:
    for media, truth in TRUTHS.items():
        if truth["kind"] != "image":
            continue
        before, after = read_pixels(SAMPLES / media), read_pixels(results / "annotated" / f"{media}.jpg")
        assert before.shape == after.shape
        face = faces[faces["media"] == media].iloc[0]
        top, left, right = (int(face[name]) for name in ("box_y1", "box_x1", "box_x2"))
        edge = slice(top - 3, top + 4), slice(left + 5, right - 5)
        changed = np.abs(after[edge].astype(int) - before[edge]).max(axis=2) > 10
        assert changed.any(axis=0).mean() > 0.9


def test_tracks_and_episodes_account_for_every_face(results: Path, faces: pd.DataFrame) -> None:
    tracks, episodes = (batchemo.load(results, table=table) for table in ("tracks", "episodes"))
    assert tracks["n_frames"].sum() == len(faces)
    assert 0 < episodes["n_frames"].sum() <= len(faces)
    assert (episodes["peak_probability"] >= 0.5).all()
    assert np.allclose(tracks[[f"share_{label}" for label in EMOTIONS]].sum(axis=1), 1, atol=1e-5)
    assert (episodes["start_s"] <= episodes["apex_s"]).all()
    assert (episodes["apex_s"] <= episodes["end_s"]).all()


def test_the_summary_counts_what_is_there(results: Path, faces: pd.DataFrame) -> None:
    found = summarise(results)
    assert {medium.media for medium in found.media} == set(TRUTHS)
    assert found.total.frames == sum(truth["n_frames"] for truth in TRUTHS.values())
    assert found.total.faces == sum(medium.count.faces for medium in found.media) == len(faces)
    assert found.total.tracks == len(batchemo.load(results, table="tracks"))
    assert sum(found.total.shares.values()) == pytest.approx(1)
    assert found.total.leading == faces.loc[~faces["uncertain"], "emotion"].mode()[0]
    json.dumps(found.as_dict())


def test_nobody_is_somebody_else_for_a_moment(results: Path) -> None:
    tracks = batchemo.load(results, table="tracks")
    assert (tracks.loc[tracks["media"].isin(VIDEOS), "n_frames"] >= 10).all()
