"""Tables have the documented columns and plain types, and appear only when they are complete."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from batchemo.atomic import remove_temporaries, replacing, write_text
from batchemo.records import EMOTIONS, MediaRow, Medium
from batchemo.results import writer as timeline
from batchemo.results.load import load
from batchemo.results.schema import MEDIA, PER_MEDIUM, read_metadata
from batchemo.results.writer import TimelineWriter
from tests.made_tables import METADATA, frame_result, probabilities_of, put, write_tables

PROMISED = {
    "faces": """media str, frame_index int32, time_s float64, face_index int16, track_id int32, box_x1 float32, box_y1 float32,
        box_x2 float32, box_y2 float32, detection_score float32, box_source str, left_eye_x float32, left_eye_y float32,
        right_eye_x float32, right_eye_y float32, nose_x float32, nose_y float32, mouth_left_x float32, mouth_left_y float32,
        mouth_right_x float32, mouth_right_y float32, face_px float32, sharpness float32, emotion str, confidence float32,
        uncertain bool, p_angry float32, p_disgust float32, p_fear float32, p_happy float32, p_sad float32, p_surprise float32,
        p_neutral float32""",
    "frames": "media str, frame_index int32, time_s float64, n_faces int16, status str, fingerprint int64",
    "tracks": """media str, track_id int32, first_s float64, last_s float64, n_frames int32, emotion str, confidence float32,
        share_angry float32, share_disgust float32, share_fear float32, share_happy float32, share_sad float32,
        share_surprise float32, share_neutral float32, best_frame_index int32""",
    "episodes": """media str, track_id int32, emotion str, start_s float64, apex_s float64, end_s float64,
        peak_probability float32, n_frames int32""",
}
MEDIA_COLUMNS = """media path kind status error message decoder width height duration_s starts_s n_frames n_frames_analysed n_faces
    n_tracks sha256 seconds_taken run_id""".split()


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("table", PER_MEDIUM)
def test_columns_are_as_promised_and_plain(tmp_path: Path, table: str) -> None:
    write_tables(tmp_path)
    promised = dict(part.split() for part in PROMISED[table].split(","))
    frame = pd.read_parquet(tmp_path / table / "a.mp4.parquet")
    assert list(frame.columns) == list(promised)
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == promised
    schema = pq.read_schema(tmp_path / table / "a.mp4.parquet")
    assert not [field.name for field in schema if "dictionary" in str(field.type)]


def test_media_columns_are_those_of_a_row() -> None:
    assert MEDIA.names == MEDIA_COLUMNS == list(MediaRow("a", "/a", "image", "done").as_dict())


@pytest.mark.parametrize("table", PER_MEDIUM)
def test_files_are_zstd_and_carry_their_metadata(tmp_path: Path, table: str) -> None:
    write_tables(tmp_path)
    path = tmp_path / table / "a.mp4.parquet"
    found = pq.ParquetFile(path).metadata
    assert {found.row_group(0).column(i).compression for i in range(found.num_columns)} == {"ZSTD"}
    assert json.loads(found.metadata[b"batchemo"]) == METADATA
    metadata, row = read_metadata(path)
    assert metadata == METADATA
    assert row.get("media") == ("a.mp4" if table == "frames" else None)


def test_metadata_of_what_is_no_table_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"PAR1 and no more")
    assert read_metadata(tmp_path / "a") == read_metadata(tmp_path / "nowhere") == ({}, {})


def test_rows_say_what_was_read(tmp_path: Path) -> None:
    write_tables(tmp_path)
    faces, frames = load(tmp_path), load(tmp_path, table="frames")
    assert len(faces) == 40
    assert faces["emotion"].tolist() == ["happy", "sad"] * 20
    assert faces["uncertain"].tolist() == [False, True] * 20
    np.testing.assert_allclose(faces[[f"p_{label}" for label in EMOTIONS]].sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(faces["confidence"].to_numpy(), np.tile([0.7, 0.4], 20), atol=1e-6)
    assert faces[["box_x1", "box_y2", "left_eye_x", "mouth_right_y"]].to_numpy()[1].tolist() == [4, 7, 10, 19]
    assert frames["n_faces"].tolist() == [2] * 20 + [0, 0]
    assert frames["status"].tolist() == ["ok"] * 21 + ["undecodable"]
    assert frames["frame_index"].tolist() == [*range(21), -1]


def test_tracks_and_episodes_follow_from_the_rows(tmp_path: Path) -> None:
    frames = [frame_result(i, [probabilities_of("happy" if i < 15 else "angry")], sharpness=i) for i in range(20)]
    write_tables(tmp_path, frames=frames)
    (track,) = load(tmp_path, table="tracks").to_dict("records")
    assert (track["track_id"], track["n_frames"], track["emotion"], track["best_frame_index"]) == (1, 20, "happy", 19)
    assert (track["first_s"], track["last_s"]) == (0, 0.76)
    assert (track["share_happy"], track["share_angry"], track["share_sad"]) == (0.75, 0.25, 0)
    assert track["confidence"] == pytest.approx(0.7 * 0.75 + 0.05 * 0.25, abs=1e-6)
    (episode,) = load(tmp_path, table="episodes").to_dict("records")
    assert (episode["emotion"], episode["start_s"], episode["n_frames"]) == ("happy", 0, 16)


def test_row_groups_are_bounded_and_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "ROW_GROUP_ROWS", 7)
    write_tables(tmp_path)
    file = pq.ParquetFile(tmp_path / "faces" / "a.mp4.parquet").metadata
    assert [file.row_group(i).num_rows for i in range(file.num_row_groups)][:-1]
    assert max(file.row_group(i).num_rows for i in range(file.num_row_groups)) <= 7
    assert load(tmp_path)["frame_index"].tolist() == [i for i in range(20) for _ in range(2)]
    assert len(load(tmp_path, table="frames")) == 22


# Whole or not at all


def test_nothing_is_visible_before_the_end_and_frames_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace = Path.replace

    def noted(self: Path, target: Path) -> Path:
        assert self.name.startswith(".")
        assert not self.name.endswith(".parquet")
        assert self.parent == Path(target).parent
        order.append(Path(target).parent.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    medium = Medium(Path("a.mp4"), "a.mp4", "a.mp4", "video")
    with TimelineWriter(tmp_path, medium, labels=EMOTIONS, metadata={}, uncertain_below=0.5) as writer:
        put(writer, frame_result(0, [probabilities_of("happy")]))
        writer.finish(MediaRow("a.mp4", "/a.mp4", "video", "done"))
        assert not list(tmp_path.rglob("*.parquet"))
    assert order[-1] == "frames"
    assert sorted(order) == sorted(PER_MEDIUM)
    assert files_below(tmp_path) == [f"{table}/a.mp4.parquet" for table in sorted(PER_MEDIUM)]


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), SystemExit(143)], ids=repr)
def test_an_exception_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    medium = Medium(Path("a.mp4"), "a.mp4", "deep/a.mp4", "video")
    writer = TimelineWriter(tmp_path, medium, labels=EMOTIONS, metadata={}, uncertain_below=0.5)

    def interrupted() -> None:
        with writer:
            put(writer, frame_result(0, [probabilities_of("happy")]))
            assert len(files_below(tmp_path)) >= 2
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert files_below(tmp_path) == []


def test_an_exception_leaves_what_was(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "before")

    def interrupted() -> None:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        interrupted()
    assert (tmp_path / "a.txt").read_text() == "before"
    assert files_below(tmp_path) == ["a.txt"]


def test_long_names_and_left_overs(tmp_path: Path) -> None:
    write_text(tmp_path / "sub" / ("ä" * 120), "x")
    left = tmp_path / "sub" / ".0123456789abcdef.part"
    left.write_text("of a killed process")
    (tmp_path / "sub" / "song.part").write_text("of another program")
    remove_temporaries(tmp_path)
    assert files_below(tmp_path) == ["sub/song.part", f"sub/{'ä' * 120}"]
