"""Annotated copies in another style: drawn again by the tables that are there, and without a trace of faces that are to be hidden."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest

import batchemo
from batchemo.errors import MediaError
from batchemo.options import merge_options
from batchemo.pipeline import medium as pipeline
from batchemo.pipeline import pictures, video
from batchemo.records import EMOTIONS
from batchemo.render import encoders
from batchemo.report.last_run import read_last_run
from batchemo.report.timelines import read_timeline
from batchemo.results.schema import PER_MEDIUM
from batchemo.run.plan import plan_run
from tests.made_media import read_pixels, write_face_clip
from tests.running import run_command, run_here

SAMPLES = Path(__file__).parents[2] / "sample_media"
CLIP, PICTURE = "clip.mp4", "eileen_collins.jpg"
COPY = f"annotated/{CLIP}.mp4"


def planned(media: Path, out: Path, **flags: object) -> tuple[list[str], list[str]]:
    found = plan_run([media], out, merge_options({"workers": 1, **flags}, environment={}))
    return [medium.name for medium in found.todo], sorted(found.redrawn)


def tables(out: Path) -> dict[str, pd.DataFrame]:
    return {table: batchemo.load(out, table=table) for table in (*PER_MEDIUM, "media")}


def size(path: Path) -> tuple[int, int]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.width, stream.height


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    write_face_clip(folder / CLIP, frames=8)
    cv2.imwrite(str(folder / PICTURE), cv2.resize(read_pixels(SAMPLES / PICTURE), (200, 200)))
    return folder


@pytest.fixture
def results(media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """After a usual run; analysing again fails from here on."""
    out = tmp_path / "results"
    run_here(media, out=out)

    def refuse(*_: object) -> None:
        raise AssertionError("analysed again")

    monkeypatch.setattr(video, "infer_frames", refuse)
    monkeypatch.setattr(pictures, "detect_picture", refuse)
    return out


def test_another_style_draws_again_and_analyses_nothing(media: Path, results: Path) -> None:
    before = tables(results)
    assert planned(media, results) == ([], [])
    assert planned(media, results, timeline=True) == ([CLIP], [CLIP]), "a picture has no timeline"
    assert planned(media, results, blur_faces=True) == ([CLIP, PICTURE], [CLIP, PICTURE])
    report = run_here(media, out=results, timeline=True, codec="vp9", quality="low")
    assert (report.analysed, report.redrawn) == ((), (CLIP,))
    assert not report.failed
    last = read_last_run(results)
    assert last is not None
    assert (last.analysed, last.redrawn, last.kept) == (0, 1, 1)
    assert size(results / COPY)[0] == 160
    assert size(results / COPY)[1] > 180
    for name, table in tables(results).items():
        pd.testing.assert_frame_equal(table, before[name], obj=name)
    assert planned(media, results, timeline=True, codec="vp9", quality="low") == ([], [])
    assert planned(media, results, annotate=False) == ([], []), "copies are not asked for, and hide nothing"


def test_a_copy_that_is_gone_is_drawn_again(media: Path, results: Path) -> None:
    (results / COPY).unlink()
    run_here(media, out=results)
    assert size(results / COPY) == (160, 160)


def test_copies_of_results_without_any(media: Path, tmp_path: Path) -> None:
    run_here(media, out=tmp_path / "results", annotate=False)
    assert planned(media, tmp_path / "results") == ([CLIP, PICTURE], [CLIP, PICTURE])


def test_a_copy_that_cannot_be_drawn_costs_no_table(media: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MediaError("not_encodable", "clip.mp4: cannot be encoded; do without with --no-annotate")

    before = tables(results)
    monkeypatch.setattr(pipeline, "annotate", refuse)
    report = run_here(media, out=results, blur_faces=True)
    assert [row.error for row in report.failed] == ["not_encodable"] * 2
    assert not list((results / "annotated").rglob("*.*")), "what shows faces is gone all the same"
    for name in PER_MEDIUM:
        pd.testing.assert_frame_equal(tables(results)[name], before[name], obj=name)


# Hiding faces


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of what lies within the face, without its mean colours."""
    fine = [picture.astype(np.float64) - cv2.GaussianBlur(picture.astype(np.float64), (0, 0), 10) for picture in (first, second)]
    return float(np.corrcoef(fine[0].ravel(), fine[1].ravel())[0, 1])


def inside(pixels: np.ndarray, box: tuple[float, ...]) -> np.ndarray:
    left, top, right, bottom = (round(side) for side in box)
    margin = round(0.2 * (right - left))
    return cv2.cvtColor(np.ascontiguousarray(pixels[top + margin : bottom - margin, left + margin : right - margin]), cv2.COLOR_BGR2GRAY)


def likenesses(media: Path, out: Path) -> list[float]:
    """How much each face of the clip is like that in its copy."""
    faces = batchemo.load(out, where=[("media", "==", CLIP)]).set_index("frame_index")
    found = []
    with av.open(str(media / CLIP)) as source, av.open(str(out / COPY)) as copy:
        for index, (one, other) in enumerate(zip(source.decode(video=0), copy.decode(video=0), strict=True)):
            box = tuple(faces.loc[index, ["box_x1", "box_y1", "box_x2", "box_y2"]])
            found.append(likeness(inside(one.to_ndarray(format="bgr24"), box), inside(other.to_ndarray(format="bgr24"), box)))
    return found


def test_hidden_faces_are_hidden_in_every_frame_and_on_the_page(media: Path, results: Path) -> None:
    assert min(likenesses(media, results)) > 0.9
    assert list((results / "report" / "thumbnails").rglob("*.jpg"))
    run_here(media, out=results, blur_faces=True)
    assert max(likenesses(media, results)) < 0.3
    assert not list((results / "report").rglob("*.jpg"))
    assert not any(track.thumbnail for track in read_timeline(results, CLIP, EMOTIONS).tracks), "the page gets them from there"
    run_here(media, out=results, blur_faces=False)
    assert min(likenesses(media, results)) > 0.9
    assert list((results / "report" / "thumbnails").rglob("*.jpg")), "shown again when they may be"


@pytest.mark.parametrize("flags", [{"annotate": False}, {"annotate": False, "report": False}, {"force": True, "annotate": False}])
def test_nothing_is_left_that_shows_faces(media: Path, tmp_path: Path, flags: dict[str, bool]) -> None:
    out = tmp_path / "results"
    run_here(media, out=out)
    run_here(media, out=out, blur_faces=True, **flags)
    assert not [path for path in out.rglob("*") if path.suffix in {".jpg", ".mp4"}]
    assert (out / "report" / "index.html").exists() == flags.get("report", True)
    assert planned(media, out, blur_faces=True, annotate=False) == ([], [])


def test_media_of_other_runs_are_named(media: Path, results: Path, caplog: pytest.LogCaptureFixture) -> None:
    (media / PICTURE).rename(media.parent / PICTURE)
    run_here(media, out=results, blur_faces=True)
    assert "1 media that this run was not about still show faces, among them eileen_collins.jpg" in caplog.text


# The command


def test_hardware_that_is_not_there_is_told_once(
    media: Path, results: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders, "_can_encode", lambda _: False)
    encoders.find_hardware.cache_clear()
    run_here(media, out=results, hardware=True)
    assert [record.message.split(";")[0] for record in caplog.records] == ["no hardware encoder for H.264 works on this machine"]
    assert size(results / COPY) == (160, 160)


def test_a_look_without_copies_is_told(media: Path, results: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_here(media, out=results, annotate=False, blur_faces=True)
    assert not caplog.records, "the page heeds it"
    run_here(media, out=results, annotate=False, timeline=True, quality="high")
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["--timeline, --quality"]


def test_a_run_tells_what_it_drew_again(media: Path, results: Path) -> None:
    ended = run_command("run", media, "--out", results, "--timeline", "--no-report")
    assert ended.returncode == 0
    assert "2 media (1 drawn again, 1 done before) in " in ended.stderr


def test_dry_run_tells_what_is_drawn_again(media: Path, results: Path) -> None:
    command = ("run", media, "--out", results, "--blur-faces", "--dry-run")
    ended = run_command(*command, "--json")
    assert json.loads(ended.stdout) == {"todo": [CLIP, PICTURE], "redrawn": [CLIP, PICTURE], "done": [], "vanished": [], "passed_over": []}
    told = run_command(*command).stderr
    assert "0 media would be analysed, 2 drawn again, 0 are done" in told
