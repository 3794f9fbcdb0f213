"""`batchemo verify` finds each kind of damage, and no problem in whole results."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

import batchemo
from batchemo.cli.messages import print_verification
from batchemo.errors import LockedError, UsageError
from batchemo.media.discover import find_media
from batchemo.media.file_identity import identity_of
from batchemo.records import EMOTIONS, Faces, FrameResult, MediaRow, Medium
from batchemo.render.jpeg import write_jpeg
from batchemo.render.video_writer import VideoWriter
from batchemo.results.catalog import read_catalog
from batchemo.results.paths import annotated_path, table_path
from batchemo.results.schema import MEDIA, SCHEMA_VERSION, write_table
from batchemo.results.writer import TimelineWriter
from batchemo.verify import tables as consistency
from batchemo.verify.audit import Verification, verify
from batchemo.verify.media import check_annotated
from batchemo.verify.tables import check_tables, read_frame_rows
from batchemo.yuv import Planes
from tests.made_media import shades, write_clip
from tests.running import run_here

SAMPLES = Path(__file__).parents[2] / "sample_media"
FRAMES, SIZE, RATE = 20, (64, 48), 10
CLIP = "folder/a clip.mp4"
OPTIONS = {"sample_fps": None, "min_face_px": 40, "detector": "fast", "uncertain_below": 0.5}


def write_shades(path: Path, *, frames: int = FRAMES, rate: int = RATE, faststart: bool = False) -> None:
    muxer = {"movflags": "+faststart"} if faststart else {}
    write_clip(path, shades(frames, SIZE, step=10), codec="mpeg4", rate=rate, container="mp4", muxer=muxer)


def frame_result(index: int, time_s: float) -> FrameResult:
    """Two faces: the first is half outside the frame, the second is only in later frames."""
    count = 1 + (index >= 5)
    boxes = np.array([[-10, 5, 30, 45], [30, 5, 60, 44]], np.float32)[:count]
    faces = Faces(boxes, np.zeros((count, 5, 2), np.float32), np.full(count, 0.9, np.float32))
    shares = np.full((count, len(EMOTIONS)), 0.05, np.float32)
    shares[:, 3 if index < 10 else 4] = 0.7
    return FrameResult(index, time_s, faces, np.full(count, 40, np.float32), np.full(count, 9, np.float32), shares, None, False, 0)


def write_tables(results: Path, medium: Medium, frame_results: list[FrameResult], *, duration_s: float, decoder: str) -> MediaRow:
    fingerprint = identity_of(medium.path)
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "batchemo_version": batchemo.__version__,
        "labels": list(EMOTIONS),
        "weights_sha256": "w",
        "options": OPTIONS,
        "path": str(medium.path),
        "fingerprint": fingerprint,
    }
    row = MediaRow(medium.name, str(medium.path), medium.kind, "done", decoder=decoder, width=SIZE[0], height=SIZE[1])
    with TimelineWriter(results, medium, labels=EMOTIONS, metadata=metadata, uncertain_below=0.5) as timeline:
        for each in frame_results:
            timeline.write(each, np.arange(1, len(each.faces) + 1, dtype=np.int32), index=each.index)
        row = dataclasses.replace(
            row,
            duration_s=duration_s,
            n_frames=len(frame_results),
            n_frames_analysed=len(frame_results),
            n_faces=timeline.n_faces,
            n_tracks=min(2, timeline.n_faces),
            sha256=fingerprint["sha256"],
            run_id="run-1",
        )
        timeline.finish(row)
    return row


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `media`, and its `results` as a run writes them, with made-up faces."""
    place = tmp_path_factory.mktemp("whole")
    (place / "media" / "folder").mkdir(parents=True)
    write_shades(place / "media" / CLIP)
    write_jpeg(place / "media" / "still.jpg", np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    out = place / "results"
    rows = []
    for medium in find_media([place / "media"], out=out):
        count = FRAMES if medium.kind == "video" else 1
        frame_results = [frame_result(index, index / RATE) for index in range(count)]
        decoder = "pyav" if medium.kind == "video" else "simplejpeg"
        rows.append(write_tables(out, medium, frame_results, duration_s=count / RATE if count > 1 else 0, decoder=decoder))
        if medium.kind == "image":
            write_jpeg(annotated_path(out, medium.output, medium.kind), np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
            continue
        with VideoWriter(annotated_path(out, medium.output, medium.kind), source=medium.path, width=SIZE[0], height=SIZE[1]) as writer:
            for each in frame_results:
                writer.write(Planes.from_rgb(np.zeros((SIZE[1], SIZE[0], 3), np.uint8)), each.time_s)
    write_table(pa.Table.from_pylist([row.as_dict() for row in rows], schema=MEDIA), table_path(out, "media"))
    (out / "runs" / "run-1").mkdir(parents=True)
    (out / "runs" / "run-1" / "run.json").write_text(json.dumps({"options": {"annotate": True}}))
    return place


@pytest.fixture
def source(whole: Path) -> Iterator[Path]:
    """The clip, for tests that change it."""
    path = whole / "media" / CLIP
    content, status = path.read_bytes(), path.stat()
    yield path
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def results(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole / "results", tmp_path / "results"))


def path_of(results: Path, table: Any) -> Path:
    return table_path(results, table, CLIP)


def spoil(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Changes the rows of a table, not its schema or metadata."""
    table = pq.ParquetFile(path).read()
    changed = change(table.to_pandas()).reset_index(drop=True)
    extra = pq.read_metadata(path).metadata
    schema = table.schema.with_metadata({key: value for key, value in extra.items() if key.startswith(b"batchemo")})
    write_table(pa.Table.from_pandas(changed, schema=schema, preserve_index=False), path)


def put(column: str, row: int, value: float | str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        rows.loc[row, column] = value
        return rows

    return change


def found(results: Path, *, deep: bool = False) -> set[tuple[str, str]]:
    """Kind and file of each problem."""
    problems = verify(results, deep=deep).problems
    assert all(problem.file in problem.message for problem in problems)
    return {(problem.kind, problem.file) for problem in problems}


def in_table(table: str) -> str:
    return f"{table}/{CLIP}.parquet"


def test_whole_results_are_whole(results: Path) -> None:
    for deep in (False, True):
        looked = verify(results, deep=deep)
        assert not looked.problems
        assert (looked.media, looked.failed, looked.frames, looked.frames_analysed, looked.faces, looked.gone) == (2, 0, 21, 21, 36, ())


def test_results_of_a_real_run_are_whole(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    shutil.copy(SAMPLES / "grace_hopper.jpg", folder)
    shutil.copy(SAMPLES / "variable_rate.mp4", folder)
    write_shades(folder / "cut.mp4", faststart=True)
    content = (folder / "cut.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(content[: len(content) - 300])
    (folder / "none.mp4").write_bytes(b"")
    run_here(folder, out=tmp_path / "out", sample_fps=4)
    for deep in (False, True):
        looked = verify(tmp_path / "out", deep=deep)
        assert not looked.problems
        assert (looked.media, looked.failed) == (4, 2)


@pytest.mark.parametrize(("more_s", "kinds"), [(0, []), (1, ["annotated"]), (9, ["annotated"]), (-12, ["annotated"])])
def test_the_copy_is_as_long_as_its_source(results: Path, more_s: float, kinds: list[str]) -> None:
    (entry,) = [each for each in read_catalog(results) if each.row.media == CLIP]
    row = dataclasses.replace(entry.row, duration_s=entry.row.duration_s + more_s)
    problems = check_annotated(results / "annotated" / f"{CLIP}.mp4", row, read_frame_rows(results, entry), sample_fps=None)
    assert [kind for kind, _ in problems] == kinds


def test_a_frame_that_claims_to_last_for_days_has_a_whole_copy(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    write_shades(folder / "days.mp4")
    content = bytearray((folder / "days.mp4").read_bytes())
    lasts = content.index(b"stts") + 16
    content[lasts : lasts + 4] = b"\x7f\xff\xff\xff"
    (folder / "days.mp4").write_bytes(content)
    run_here(folder, out=tmp_path / "out")
    looked = verify(tmp_path / "out")
    assert (looked.problems, looked.failed) == ((), 0)


@pytest.mark.parametrize(
    ("table", "change", "kind"),
    [
        ("frames", lambda rows: rows.drop(7), {"gap", "count", "orphan", "container", "annotated"}),
        ("frames", lambda rows: rows.iloc[:-1], {"count", "orphan", "container", "annotated"}),
        ("frames", lambda rows: pd.concat([rows[:8], rows[7:]]), {"repeated", "times", "count", "container", "annotated"}),
        ("frames", lambda rows: rows.iloc[[1, 0, *range(2, len(rows))]], {"order", "times", "annotated"}),
        ("frames", put("time_s", 7, 0.6), {"times", "container", "annotated"}),
        ("frames", put("time_s", 7, np.nan), {"empty"}),
        ("frames", put("time_s", 7, np.inf), {"times", "container", "annotated"}),
        ("frames", put("time_s", 7, 0.65), {"times", "container", "annotated"}),
        ("frames", put("n_faces", 7, 3), {"count"}),
        ("frames", put("status", 7, "undecodable"), {"gap", "count", "orphan", "annotated"}),
        ("faces", put("p_happy", 3, 0.9), {"probabilities"}),
        ("faces", put("p_happy", 3, np.nan), {"empty"}),
        ("tracks", put("first_s", 0, np.nan), {"empty"}),
        ("faces", lambda rows: rows.assign(p_sad=rows["p_sad"] - 1, p_happy=rows["p_happy"] + 1), {"probabilities"}),
        ("faces", put("emotion", 3, "fear"), {"emotion"}),
        ("faces", put("confidence", 3, 0.6), {"emotion"}),
        ("faces", put("uncertain", 3, True), {"emotion"}),
        ("faces", put("box_x1", 3, -40.0), {"box"}),
        ("faces", put("box_x2", 3, -20.0), {"box"}),
        ("faces", put("box_y2", 3, np.inf), {"box"}),
        ("faces", put("time_s", 3, 0.301), {"times"}),
        ("faces", put("frame_index", 3, 99), {"orphan", "order"}),
        ("faces", put("face_index", 6, 0), {"repeated"}),
        ("faces", put("media", 3, "other.mp4"), {"foreign"}),
        ("faces", lambda rows: rows.drop(3), {"count"}),
        ("faces", lambda rows: rows.drop(range(len(rows))), {"count"}),
        ("tracks", lambda rows: rows.drop(1), {"count", "orphan"}),
        ("tracks", lambda rows: pd.concat([rows, rows[:1]]), {"repeated"}),
        ("tracks", put("last_s", 0, 1.0), {"count", "times"}),
        ("episodes", put("end_s", 0, 9.0), {"times"}),
        ("episodes", put("n_frames", 0, 999), {"count"}),
        ("episodes", put("track_id", 0, 7), {"orphan"}),
        ("episodes", lambda rows: rows.drop(0), {"recap"}),
        ("episodes", lambda rows: rows.drop(range(len(rows))), {"recap"}),
        ("episodes", lambda rows: rows.iloc[[1, 0, *range(2, len(rows))]], {"recap"}),
        ("episodes", put("emotion", 0, "fear"), {"recap"}),
        ("episodes", put("n_frames", 1, 2), {"recap"}),
        ("episodes", put("peak_probability", 1, 0.1), {"recap"}),
        ("episodes", put("apex_s", 0, 0.5), {"recap"}),
        ("tracks", put("emotion", 0, "fear"), {"recap"}),
        ("tracks", put("best_frame_index", 0, 3), {"recap"}),
        ("tracks", put("share_happy", 0, 0.1), {"recap"}),
    ],
)
def test_rows_that_are_off(results: Path, table: str, change: Callable[[pd.DataFrame], pd.DataFrame], kind: set[str]) -> None:
    spoil(path_of(results, table), change)
    problems = verify(results).problems
    kinds = {problem.kind for problem in problems}
    assert kinds == kind
    assert {problem.media for problem in problems} == {CLIP}
    assert any(problem.file in (in_table(table), in_table("faces")) for problem in problems)


@pytest.mark.parametrize("table", ["faces", "frames", "tracks", "episodes"])
def test_files_that_are_not_whole(results: Path, table: str) -> None:
    path = path_of(results, table)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert found(results) == {("damaged", in_table(table))}
    if table != "frames":
        path.unlink()
        assert found(results) == {("missing", in_table(table))}


@pytest.mark.parametrize("table", ["faces", "frames", "tracks", "episodes"])
def test_one_bit_that_fell_over_on_the_disk(results: Path, table: str) -> None:
    path = path_of(results, table)
    columns = pq.read_metadata(path).row_group(0)
    column = next(
        columns.column(i) for i in range(columns.num_columns) if columns.column(i).path_in_schema == "track_id" or table == "frames"
    )
    content = bytearray(path.read_bytes())
    begin = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
    content[begin + column.total_compressed_size - 2] ^= 4
    path.write_bytes(content)
    assert found(results) == {("damaged", in_table(table))}


def test_without_frames_the_others_belong_to_nothing(results: Path) -> None:
    path_of(results, "frames").unlink()
    orphans = {("orphan", in_table(table)) for table in ("faces", "tracks", "episodes")}
    assert found(results) == {*orphans, ("orphan", f"annotated/{CLIP}"), ("missing", "media.parquet")}


def test_columns_that_lack(results: Path) -> None:
    path = path_of(results, "faces")
    table = pq.ParquetFile(path).read()
    write_table(table.drop_columns(["sharpness"]), path)
    assert found(results) == {("columns", in_table("faces"))}
    write_table(table.set_column(0, "media", pa.array([1] * len(table))), path)
    assert found(results) == {("columns", in_table("faces"))}


@pytest.mark.parametrize("table", ["faces", "tracks", "episodes"])
def test_tables_of_two_analyses(results: Path, table: str) -> None:
    path = path_of(results, table)
    read = pq.ParquetFile(path).read()
    metadata = json.loads(read.schema.metadata[b"batchemo"])
    metadata["fingerprint"]["sha256"] = "0" * 64
    write_table(read.replace_schema_metadata({b"batchemo": json.dumps(metadata)}), path)
    assert found(results) == {("metadata", in_table(table))}


def test_media_parquet(results: Path) -> None:
    path = table_path(results, "media")
    kept = path.read_bytes()
    for change, kind in (
        (put("n_faces", 0, 3), "row"),
        (put("sha256", 1, "0" * 64), "row"),
        (lambda rows: rows[:1], "missing"),
        (lambda rows: pd.concat([rows, rows[:1].assign(media="new.mp4")]), "missing"),
        (lambda rows: pd.concat([rows, rows[:1]]), "repeated"),
    ):
        spoil(path, change)
        assert found(results) == {(kind, "media.parquet")}
        path.write_bytes(kept)
    spoil(path, lambda rows: pd.concat([rows, rows[:1].assign(media="killer.mp4", status="failed", error="crashed")]))
    looked = verify(results)
    assert (looked.problems, looked.media, looked.failed) == ((), 3, 1), "a medium that killed its worker has a row and no tables"
    path.unlink()
    assert found(results) == {("missing", "media.parquet")}


def test_media_that_changed_and_media_that_are_gone(results: Path, source: Path) -> None:
    os.utime(source, (1, 1))
    assert not verify(results).problems, "touched, but the same content"
    write_shades(source, frames=FRAMES + 1)
    assert found(results) == {("changed", str(source))}
    source.unlink()
    looked = verify(results)
    assert (looked.problems, looked.gone) == ((), (CLIP,))
    spoil(path_of(results, "frames"), lambda rows: rows.drop(7))
    assert ("gap", in_table("frames")) in found(results)


def test_only_deep_sees_a_change_that_size_and_time_hide(results: Path, source: Path) -> None:
    before = source.stat()
    content = bytearray(source.read_bytes())
    content[-5] ^= 1
    source.write_bytes(content)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not verify(results).problems
    assert found(results, deep=True) >= {("changed", str(source))}


def test_deep_finds_frames_that_nobody_decoded(results: Path, source: Path) -> None:
    """There are as many packets as rows, but one row is marked undecodable wrongly."""

    def lose(rows: pd.DataFrame) -> pd.DataFrame:
        for column, value in (("frame_index", -1), ("n_faces", 0), ("status", "undecodable")):
            rows.loc[FRAMES - 1, column] = value
        return rows

    spoil(path_of(results, "frames"), lose)
    assert not {file for kind, file in found(results) if kind == "container"}
    assert ("container", str(source)) in found(results, deep=True)


def test_annotated_copies(results: Path) -> None:
    path = results / "annotated" / f"{CLIP}.mp4"
    kept = path.read_bytes()
    path.write_bytes(kept[: len(kept) // 3])
    assert found(results) == {("annotated", f"annotated/{CLIP}.mp4")}
    write_shades(path, frames=FRAMES - 1)
    assert found(results) == {("annotated", f"annotated/{CLIP}.mp4")}
    write_shades(path, rate=2 * RATE)
    assert found(results) == {("annotated", f"annotated/{CLIP}.mp4")}, "as many frames, half as long"
    path.unlink()
    assert found(results) == {("missing", f"annotated/{CLIP}.mp4")}
    (results / "annotated" / "still.jpg.jpg").write_bytes(b"\xff\xd8 cut off")
    assert ("annotated", "annotated/still.jpg.jpg") in found(results)
    (results / "annotated" / "nobody.mp4.mp4").write_bytes(kept)
    assert ("orphan", "annotated/nobody.mp4") in found(results)
    shutil.rmtree(results / "annotated")
    assert not verify(results).problems, "the whole folder was removed on purpose"


def test_what_a_killed_run_left(results: Path, tmp_path: Path) -> None:
    left = ".0123456789abcdef-77.part"
    (results / "faces" / left).touch()
    (results / "faces" / ".mine.part").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / left).touch()
    (results / "linked").symlink_to(tmp_path / "elsewhere")
    assert found(results) == {("temporary", f"faces/{left}"), ("temporary", f"linked/{left}")}


def test_refuses_what_is_no_results_folder_and_one_that_is_written_to(results: Path, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError, match="holds no results"):
            verify(path)
    with FileLock(results / ".batchemo.lock"), pytest.raises(LockedError, match="a run is writing"):
        verify(results)


def test_memory_does_not_grow_with_the_table(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bytes_for(times: int) -> int:
        monkeypatch.setattr(consistency, "BATCH_ROWS", 1000)
        spoil(path_of(results, "faces"), lambda rows: pd.concat([rows] * times))
        (entry,) = [each for each in read_catalog(results) if each.row.media == CLIP]
        tracemalloc.start()
        list(check_tables(results, entry, read_frame_rows(results, entry)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    small = bytes_for(100)
    assert bytes_for(20) < 1.3 * small, "twenty times as many rows"


def test_frames_are_counted_with_those_that_are_lost(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    write_shades(folder / "cut.mp4", faststart=True)
    content = (folder / "cut.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(content[: len(content) - 300])
    report = run_here(folder, out=tmp_path / "out", report=False, annotate=False)
    looked = verify(tmp_path / "out")
    assert looked.frames_analysed == report.rows[0].n_frames_analysed < looked.frames == report.rows[0].n_frames


def test_the_summary_distinguishes_analysed_frames_from_all_frames(capsys: pytest.CaptureFixture[str]) -> None:
    print_verification(Verification(media=2, failed=1, frames=944, frames_analysed=362, faces=362, gone=(), problems=()))
    assert "944 frames, 362 analysed, and 362 faces of 2 media (1 failed" in capsys.readouterr().err


def test_the_command(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from batchemo.cli import main as cli

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["batchemo", "verify", *map(str, arguments)])
        with pytest.raises(SystemExit) as exited:
            cli.main()
        return int(exited.value.code or 0), *capsys.readouterr()

    code, out, err = call(results)
    assert (code, out) == (0, "")
    assert "All is accounted for: 21 frames" in err
    spoil(path_of(results, "faces"), put("p_happy", 3, 0.9))
    code, out, err = call(results)
    assert (code, len(out.splitlines())) == (3, 1)
    assert in_table("faces") in out
    assert "1 problem in 21 frames" in err
    code, out, err = call(results, "--json")
    assert code == 3
    (problem,) = json.loads(out)["problems"]
    assert (problem["kind"], problem["media"], problem["file"]) == ("probabilities", CLIP, in_table("faces"))


def test_loads_no_torch(results: Path) -> None:
    import subprocess

    script = f"import sys\nfrom pathlib import Path\nfrom batchemo.verify.audit import verify\nverify(Path({str(results)!r}), deep=True)\n"
    ended = subprocess.run([sys.executable, "-c", script + "assert 'torch' not in sys.modules"], check=False)
    assert ended.returncode == 0
