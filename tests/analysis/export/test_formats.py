"""Each export, read back by its format's own library, holds the values of the tables; names and labels stay text."""

from __future__ import annotations

import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import Any

import motrics
import numpy as np
import pandas as pd
import pyarrow as pa
import pympi
import pytest
import webvtt

import batchemo
from batchemo.analysis.export.formats import export_results
from batchemo.errors import UsageError
from batchemo.records import EMOTIONS, MediaRow, Medium
from batchemo.results.paths import table_path
from batchemo.results.schema import MEDIA, write_table
from batchemo.results.writer import TimelineWriter
from tests.made_tables import frame_result, lost_frame, probabilities_of, put

HOSTILE = "=<i>&--> \x01\nWEBVTT ä.mp4"
LABELS = ("<b>&happy-->\x02", "calm")


def write_medium(
    results: Path, name: str, output: str, emotions: list[str], *, kind: Any = "video", labels: tuple[str, ...] = EMOTIONS
) -> None:
    row = MediaRow(name, f"/videos/{name}", kind, "done", duration_s=len(emotions) / 25, n_frames_analysed=len(emotions))
    medium = Medium(Path(row.path), name, output, kind)
    with TimelineWriter(results, medium, labels=labels, metadata={"labels": list(labels)}, uncertain_below=0.5) as writer:
        for index, emotion in enumerate(emotions):
            put(writer, frame_result(index, [probabilities_of(emotion, 0.9, labels)] if emotion else []))
        writer.write_undecodable(lost_frame(9.0))
        writer.finish(row)
    earlier = [] if not (results / "media.parquet").exists() else pd.read_parquet(results / "media.parquet").to_dict("records")
    write_table(pa.Table.from_pylist([*earlier, row.as_dict()], schema=MEDIA), table_path(results, "media"))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_medium(tmp_path, "deep/a.mp4", "deep/a.mp4", ["happy"] * 50 + ["sad"] * 50 + [""] * 10)
    write_medium(tmp_path, HOSTILE, "hostile.mp4", [LABELS[0]] * 30, labels=LABELS)
    write_medium(tmp_path, "empty.mp4", "empty.mp4", [""] * 5)
    write_medium(tmp_path, "p.jpg", "p.jpg", ["happy"], kind="image")
    return tmp_path


def test_captions(results: Path) -> None:
    found = export_results(results, "webvtt")
    assert [file.relative_to(results).as_posix() for file in found.files] == [
        f"exports/webvtt/{name}.vtt" for name in ("deep/a.mp4", "empty.mp4", "hostile.mp4")
    ]
    episodes = batchemo.load(table_path(results, "episodes", "deep/a.mp4"))
    first, second = webvtt.read(str(found.files[0])).captions
    assert (first.start, first.text) == ("00:00:00.000", "#1 happy 90%")
    assert first.end == second.start == f"00:00:0{episodes['start_s'][1]:.3f}"
    assert second.end == "00:00:04.000", "the last frame, at 3.96 s, is shown for its 40 ms"
    assert len(webvtt.read(str(found.files[1]))) == 0


def test_captions_stand_beside_the_annotated_videos(results: Path) -> None:
    (results / "annotated").mkdir()
    assert export_results(results, "webvtt").files[0] == results / "annotated" / "deep" / "a.mp4.vtt"


def test_captions_hold_no_markup_of_others(results: Path) -> None:
    text = (export_results(results, "webvtt").out / "hostile.mp4.vtt").read_text()
    assert text.count("-->") == 1
    assert text.count("\nWEBVTT") == 0
    (cue,) = webvtt.from_string(text).captions
    assert cue.raw_text == "#1 &lt;b&gt;&amp;happy-&gt;\N{REPLACEMENT CHARACTER} 90%"


def test_elan(results: Path) -> None:
    found = export_results(results, "eaf")
    document = pympi.Elan.Eaf(found.files[0])
    assert list(document.get_tier_names()) == ["track 1"]
    (first, second) = sorted(document.get_annotation_data_for_tier("track 1"))
    assert (first[0], first[2], second[1], second[2]) == (0, "happy", 4000, "sad")
    assert first[1] == second[0]
    (link,) = document.get_linked_files()
    assert (link["MEDIA_URL"], link["MIME_TYPE"]) == ("file:///videos/deep/a.mp4", "video/mp4")
    hostile = pympi.Elan.Eaf(next(file for file in found.files if file.name == "hostile.mp4.eaf"))
    ((_, _, value),) = hostile.get_annotation_data_for_tier("track 1")
    assert value == "<b>&happy-->\N{REPLACEMENT CHARACTER}"
    (link,) = hostile.get_linked_files()
    assert urllib.parse.unquote(link["MEDIA_URL"]) == f"file:///videos/{HOSTILE}"
    assert (found.files[0].parent / urllib.parse.unquote(link["RELATIVE_MEDIA_URL"])).name == Path(HOSTILE).name


def test_writing_again_leaves_no_copies(results: Path) -> None:
    for _ in range(2):
        found = export_results(results, "eaf")
    assert sorted(path.name for path in found.out.rglob("*") if path.is_file()) == sorted(file.name for file in found.files)


def test_mot(results: Path) -> None:
    """Read back by motrics, and once more as text for the columns that it leaves out."""
    found = export_results(results, "mot")
    frames = motrics.load_motchallenge(found.files[0])
    faces = batchemo.load(table_path(results, "faces", "deep/a.mp4"))
    assert [frame - 1 for frame in frames] == faces["frame_index"].tolist(), "frames count from 1"
    assert [ids for ids, _ in frames.values()] == [[1]] * 100
    boxes = np.array([box for _, (box,) in frames.values()]) - 1
    np.testing.assert_allclose(boxes, faces[["box_x1", "box_y1", "box_x2", "box_y2"]], atol=0.01)
    read = pd.read_csv(found.files[0], header=None).to_numpy(float)
    assert read.shape == (100, 10)
    np.testing.assert_allclose(read[:, 6], faces["detection_score"], atol=1e-4)
    assert (read[:, 7:] == -1).all()
    assert motrics.load_motchallenge(found.files[1]) == {}, "no faces, no lines"


def test_csv(results: Path) -> None:
    found = export_results(results, "csv")
    assert {file.name for file in found.files} == {f"{table}.csv" for table in ("faces", "frames", "tracks", "episodes", "media")}
    for file in found.files:
        table: Any = file.stem
        expected = batchemo.load(results, table=table).replace(HOSTILE, f"'{HOSTILE}").replace("", np.nan)
        read = pd.read_csv(file)
        read = read.astype({name: expected[name].dtype for name in read.columns if not read[name].isna().all()})
        pd.testing.assert_frame_equal(read, expected, check_dtype=False)


def test_names_are_no_formulas(results: Path) -> None:
    read = pd.read_csv(export_results(results, "csv").out / "faces.csv")
    assert set(read["media"]) == {"deep/a.mp4", f"'{HOSTILE}", "p.jpg"}
    assert (read["box_x1"] == 0).all(), "numbers stay numbers"


def test_another_folder(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    found = export_results(results, "mot", out=out)
    assert found.files[0] == out / "deep" / "a.mp4.txt"
    assert found.as_dict()["files"][0] == str(found.files[0])


def call(*arguments: str | Path, script: str = "") -> subprocess.CompletedProcess[str]:
    code = f"{script}\nfrom batchemo.cli.main import main\nmain()"
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_command(results: Path) -> None:
    ended = call("export", results, "--to", "mot")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert f"3 files are in {results}/exports/mot" in ended.stderr


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_what_is_no_results_folder(tmp_path: Path, folder: str) -> None:
    with pytest.raises(UsageError, match="batchemo run"):
        export_results(tmp_path / folder, "csv")


def test_without_pympi_the_command_that_installs_it_is_named(results: Path) -> None:
    ended = call("export", results, "--to", "eaf", script="import sys; sys.modules['pympi'] = None")
    assert ended.returncode == 2
    assert 'pip install "batchemo[eaf]"' in ended.stderr
    assert not (results / "exports").exists()
