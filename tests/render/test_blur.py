"""Blurred copies show no face, or the times of possible faces are reported."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from facenet_pytorch import MTCNN
from numpy.typing import NDArray

import batchemo
from batchemo.options import merge_options
from batchemo.records import EMOTIONS, Faces, Frame, MediaRow, OverlayData
from batchemo.render import blur_check
from batchemo.render.blur import SOLID
from batchemo.render.blur_check import BlurCheck
from batchemo.render.overlay import draw_overlay
from batchemo.report.site import write_site
from batchemo.results.blur_state import MARKER, read_blur_state
from batchemo.results.unblurred_faces import with_faces_left, without_faces_left
from batchemo.verify.audit import verify
from tests.made_media import read_pixels, write_clip
from tests.running import command_here, run_here

SAMPLES = Path(__file__).parents[2] / "sample_media"
FPS = 10
SMALL_PX = 70
"""Side of a head whose face, 23 x 29 px, is too small for a run with `LEAST_PX`."""
LEAST_PX = 60
FACE = (0.35, 0.13, 0.69, 0.55)
"""Position of the face in a head, as fractions of the head's side."""


def head(side: int) -> NDArray[np.uint8]:
    """RGB uint8 side x side x 3."""
    picture = read_pixels(SAMPLES / "eileen_collins.jpg")[30:290, 90:350]
    return cv2.cvtColor(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB).astype(np.uint8)


def scene(width: int = 320, height: int = 240, /, **places: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Grey, with heads of a given side at (left, top), which may lie partly outside."""
    pixels = np.full((height + 400, width + 400, 3), 96, np.uint8)
    for side, left, top in places.values():
        pixels[200 + top : 200 + top + side, 200 + left : 200 + left + side] = head(side)
    return np.ascontiguousarray(pixels[200:-200, 200:-200])


def write_video(path: Path, scenes: list[NDArray[np.uint8]], *, gop: int = 30) -> Path:
    return write_clip(path, scenes, rate=FPS, options={"g": str(gop), "crf": "12"}).path


def write_jpeg(path: Path, pixels: NDArray[np.uint8]) -> Path:
    cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 97])
    return path


def frames_of(path: Path) -> list[NDArray[np.uint8]]:
    if path.suffix == ".jpg":
        return [read_pixels(path, cv2.IMREAD_COLOR_RGB)]
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]


def command(*arguments: object, expect: int) -> subprocess.CompletedProcess[str]:
    ended = command_here(*arguments)
    assert ended.returncode == expect, ended.stderr
    return ended


@pytest.fixture(scope="module")
def mtcnn() -> Callable[[NDArray[np.uint8]], int]:
    """Number of faces that facenet-pytorch's own detector finds."""
    detector = MTCNN(keep_all=True, min_face_size=20, device="cpu")

    def count(pixels: NDArray[np.uint8]) -> int:
        boxes, _ = detector.detect(pixels)
        return 0 if boxes is None else len(boxes)

    return count


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A video of 2.8 s with a large face, and a small one far from it from 1.0 to 1.4 s and at 2.6 s; and a picture of both."""
    folder = tmp_path / "media"
    folder.mkdir()
    large, small = (190, 5, 40), (SMALL_PX, 215, 20)
    seen = [scene(large=large, **({"small": small} if index in {10, 11, 12, 13, 14, 26} else {})) for index in range(28)]
    write_video(folder / "video.mp4", seen)
    write_jpeg(folder / "picture.jpg", scene(large=large, small=small))
    return folder


# What is left


def test_unknown_small_faces_are_reported_with_their_times(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    ended = command("run", media, "--out", out, "--blur-faces", "--json", "--min-face-px", LEAST_PX, "--workers", 1, expect=3)
    reported = json.loads(ended.stdout)
    rows = {row["media"]: row for row in reported["media"]}
    assert reported["faces_left"] == ["picture.jpg", "video.mp4"]
    assert {row["status"] for row in rows.values()} == {"done"}
    assert {row["error"] for row in rows.values()} == {"faces_left"}
    words = "after blurring a face may be left in 6 frames, at 1.00 to 1.40 s and at 2.60 s; look there before you publish"
    assert rows["video.mp4"]["message"] == words
    assert rows["picture.jpg"]["message"] == "after blurring a face may be left in the picture; look at it before you publish"
    assert f"video.mp4: {rows['video.mp4']['message']}" in ended.stderr
    assert batchemo.load(out, table="media").set_index("media")["error"].to_dict() == dict.fromkeys(rows, "faces_left")
    assert len(batchemo.load(out, where=[("media", "==", "video.mp4")])) == 28, "tables are complete"
    again = command("run", media, "--out", out, "--no-report", "--min-face-px", LEAST_PX, "--workers", 1, expect=3)
    assert "This results folder is blurred and stays so" in again.stderr
    assert f"not all blurred video.mp4: {rows['video.mp4']['message']}" in again.stderr
    assert not verify(out).problems
    assert rows["video.mp4"]["message"] in command("summary", out, expect=0).stdout
    shown = run_here(media, out=out, blur_faces=False, min_face_px=LEAST_PX)
    assert [(row.error, row.message) for row in shown.rows] == [("", "")] * 2


def test_nothing_is_reported_where_no_face_is_left(tmp_path: Path, mtcnn: Callable[[NDArray[np.uint8]], int]) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    write_video(folder / "video.mp4", [scene(one=(130, 20 + index, 60), other=(100, 200, 100)) for index in range(0, 12, 3)])
    write_jpeg(folder / "picture.jpg", scene(one=(130, 20, 60), other=(100, 200, 100)))
    assert mtcnn(frames_of(folder / "picture.jpg")[0]) == 2
    for style in ("pixels", "solid"):
        report = run_here(folder, out=tmp_path / style, blur_faces=True, blur_style=style)
        assert [(row.status, row.error, row.message) for row in report.rows] == [("done", "", "")] * 2
        copies = [pixels for path in (tmp_path / style / "annotated").iterdir() for pixels in frames_of(path)]
        assert [mtcnn(pixels) for pixels in copies] == [0] * 5


@pytest.mark.parametrize(("left", "top"), [(-60, 60), (252, 60), (100, -42), (100, 194)], ids=["left", "right", "top", "bottom"])
def test_a_face_that_the_edge_cuts_is_blurred(tmp_path: Path, left: int, top: int) -> None:
    """A third to a half of it is outside, and it is not in the tables."""
    pixels = scene(cut=(130, left, top))
    folder = tmp_path / "media"
    folder.mkdir()
    write_jpeg(folder / "picture.jpg", pixels)
    write_video(folder / "video.mp4", [pixels] * 4)
    report = run_here(folder, out=tmp_path / "results", blur_faces=True, blur_style="solid")
    assert [(row.error, row.n_faces) for row in report.rows] == [("", 0)] * 2
    x1, y1, x2, y2 = (round(130 * share) for share in FACE)
    face = np.s_[max(0, top + y1) : top + y2, max(0, left + x1) : left + x2]
    assert pixels[face].std() > 30
    for path in (tmp_path / "results" / "annotated").iterdir():
        for copy in frames_of(path):
            assert np.abs(copy[face].astype(int) - SOLID).max() < 12


def test_solid_leaves_one_colour() -> None:
    overlay = overlay_of([(60, 60, 120, 130)])
    drawn = draw_overlay(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8), overlay, labels=EMOTIONS, blur_style="solid")
    assert (drawn[40:150, 45:135] == SOLID).all()


# The check alone


def overlay_of(hidden: list[tuple[float, ...]]) -> OverlayData:
    no = np.empty((0, 4), np.float32)
    ids, shares = np.empty(0, np.int32), np.empty((0, 7), np.float32)
    return OverlayData(no, ids, shares, np.empty(0, np.bool_), np.array(hidden, np.float32).reshape(-1, 4))


def faces_at(*boxes: tuple[float, ...]) -> Faces:
    count = len(boxes)
    return Faces(np.array(boxes, np.float32).reshape(-1, 4), np.zeros((count, 5, 2), np.float32), np.ones(count, np.float32))


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Faces], list[OverlayData]], tuple[list[int], list[float]]]:
    """Number of blurred boxes in each frame, and times of possible faces, if these faces are found in each frame."""

    def checked(found: list[Faces], overlay: list[OverlayData]) -> tuple[list[int], list[float]]:
        checker = BlurCheck(style="pixels", device="cpu")
        monkeypatch.setattr(checker, "_find", lambda pixels: found[int(pixels[0, 0, 0])])

        def frames() -> Iterator[tuple[Frame, OverlayData]]:
            for index, each in enumerate(overlay):
                yield Frame(index, index / FPS, np.full((100, 100, 3), index, np.uint8)), each

        done = list(checker.check(frames()))
        assert [frame.index for frame, _ in done] == list(range(len(overlay)))
        return [len(each.hidden) for _, each in done], checker.possible_faces_s

    return checked


Check = Callable[[list[Faces], list[OverlayData]], tuple[list[int], list[float]]]


def test_boxes_at_a_known_face_are_blurred_and_others_reported(check: Check) -> None:
    known = overlay_of([(40, 40, 60, 60)])
    inside, beside, far = (42, 42, 58, 58), (60, 40, 80, 60), (20, 75, 35, 90)
    assert check([faces_at(inside)], [known]) == ([1], [])
    assert check([faces_at(beside)], [known]) == ([2], [])
    assert check([faces_at(far, inside)], [known]) == ([1], [0.0])
    assert check([faces_at(far, (40, 75, 55, 90))], [overlay_of([])]) == ([0], [0.0, 0.0])


def test_faces_cut_by_the_edge_are_blurred_in_neighbouring_frames(check: Check) -> None:
    found = [faces_at((-10, 40, 20, 70)) if index == 12 else faces_at() for index in range(30)]
    hidden, left = check(found, [overlay_of([])] * 30)
    assert hidden == [int(4 <= index <= 20) for index in range(30)]
    assert not left


def test_blurring_of_neighbouring_frames_is_limited(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blur_check, "_HOLD_SECONDS", 0.25)
    found = [faces_at((-10, 40, 20, 70)) if index == 12 else faces_at() for index in range(30)]
    assert check(found, [overlay_of([])] * 30)[0] == [int(10 <= index <= 14) for index in range(30)]


def test_blurred_shoulders_at_the_edge_are_no_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """A false face at the edge that appears only once a head is blurred."""
    checker = BlurCheck(style="solid", device="cpu")
    monkeypatch.setattr(checker, "_find", lambda pixels: faces_at((30, 60, 70, 110)) if (pixels == SOLID).any() else faces_at())
    frame = Frame(0, 0.0, np.zeros((100, 100, 3), np.uint8))
    ((_, overlay),) = checker.check(iter([(frame, overlay_of([(40, 30, 60, 60)]))]))
    assert len(overlay.hidden) == 1
    assert not checker.possible_faces_s


def test_large_pictures_are_searched_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same faces as without tiles: large and small ones, some across the borders of tiles, some cut by the edge."""
    places = {"a": (90, 130, 20), "b": (90, 220, 160), "c": (220, 0, 120), "cut": (100, 305, 60)}
    pixels = scene(360, 300, **places)
    detector = blur_check._detector("cpu")
    whole = blur_check._detect(detector, pixels, lambda: None)
    monkeypatch.setattr(blur_check, "_WHOLE_PIXELS", 30_000)
    monkeypatch.setattr(blur_check, "_TILE_PX", 256)
    monkeypatch.setattr(blur_check, "_TILE_OVERLAP_PX", 90)
    tiled = blur_check._detect(detector, pixels, lambda: None)
    assert len(whole) == len(tiled) == len(places)
    assert (tiled.iou(whole).max(axis=1) > 0.7).all()


# The words


def row(**more: Any) -> MediaRow:
    return dataclasses.replace(MediaRow("a.mp4", "/a.mp4", "video", "done"), **more)


def test_messages_are_short_and_cover_all_times() -> None:
    assert (
        with_faces_left(row(), [7.04]).message == "after blurring a face may be left in one frame, at 7.04 s; look there before you publish"
    )
    times = [3.2, 3.24, 3.28, 3.6, 7.04, 7.04]
    assert "in 5 frames, at 3.20 to 3.60 s and at 7.04 s;" in with_faces_left(row(), times).message
    many = np.cumsum(np.random.default_rng(0).exponential(5, 4000))
    message = with_faces_left(row(), many.tolist()).message
    assert len(message) < 260
    assert f"at {many[0]:.2f} to" in message
    assert f"to {many[-1]:.2f} s;" in message
    assert "4 faces may be left in the picture" in with_faces_left(row(kind="image"), [0.0] * 4).message


def test_messages_are_withdrawn_and_others_stay() -> None:
    before = row(message="3 of 9 frames cannot be decoded (damaged)")
    said = with_faces_left(before, [1.0])
    assert (said.error, said.message.startswith(f"{before.message}; after blurring")) == ("faces_left", True)
    assert without_faces_left(said) == before
    assert with_faces_left(said, []) == before
    assert without_faces_left(with_faces_left(row(), [1.0])) == row()
    cut = with_faces_left(row(status="failed", error="truncated", message="it is cut off"), [1.0])
    assert (cut.error, cut.message.startswith("it is cut off; after")) == ("truncated", True)


# Segments and workers


def test_workers_and_segments_report_and_draw_the_same(tmp_path: Path) -> None:
    """Two segments; small faces within the first and across the border, and one that the edge cuts just after it."""
    small, cut = (SMALL_PX, 215, 20), (130, -55, 80)
    appear: dict[int, dict[str, tuple[int, int, int]]] = {
        **{index: {"small": small} for index in (28, 32, 76, 80)},
        **{index: {"cut": cut} for index in (84, 88)},
    }
    video = write_video(tmp_path / "video.mkv", [scene(**appear.get(index, {})) for index in range(0, 100)], gop=20)
    reported, copies = [], []
    for workers in (1, 2):
        out = tmp_path / f"results_{workers}"
        report = run_here(
            video, out=out, blur_faces=True, workers=workers, decoder="pyav", sample_fps=2.5, min_face_px=LEAST_PX, report=False
        )
        reported.append([(each.status, each.error, each.message) for each in report.rows])
        copies.append(np.stack(frames_of(out / "annotated" / "video.mkv.mp4")))
    assert reported[0] == reported[1]
    assert reported[0][0][:2] == ("done", "faces_left")
    assert "at 2.80 to 3.20 s" in reported[0][0][2]
    assert np.abs(copies[0].astype(int) - copies[1]).mean() < 1


# The folder remembers


def blurred(out: Path) -> dict[str, tuple[bool, str]]:
    """Whether each copy is blurred by the tables, and in which style."""
    from batchemo.results.catalog import read_catalog

    styles = {entry.row.media: entry.style or {} for entry in read_catalog(out)}
    return {name: (bool(style.get("blur_faces")), style.get("blur_style", "")) for name, style in styles.items()}


@pytest.fixture
def portrait(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    write_jpeg(folder / "one.jpg", scene(large=(130, 90, 60)))
    return folder


def test_a_blurred_folder_stays_so(portrait: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "results"
    run_here(portrait, out=out, blur_faces=True, blur_style="solid")
    write_jpeg(portrait / "two.jpg", scene(large=(120, 60, 60)))
    report = run_here(portrait, out=out)
    assert (report.analysed, report.redrawn) == (("two.jpg",), ())
    assert blurred(out) == {"one.jpg": (True, "solid"), "two.jpg": (True, "solid")}
    assert not list((out / "report").rglob("*.jpg"))
    assert not caplog.records
    run_here(portrait, out=out, blur_faces=False)
    assert blurred(out) == {"one.jpg": (False, ""), "two.jpg": (False, "")}
    assert [record.getMessage() for record in caplog.records] == [
        "this results folder was blurred; the run shows the faces of 2 media again, among them one.jpg. To hide them: --blur-faces"
    ]
    caplog.clear()
    assert not run_here(portrait, out=out).redrawn
    assert not caplog.records, "and stays so"
    run_here(portrait, out=out, blur_faces=True)
    assert blurred(out) == {"one.jpg": (True, "pixels"), "two.jpg": (True, "pixels")}


@pytest.mark.parametrize("flags", [{"annotate": False}, {"shard": "1/1"}, {"report": False}])
def test_conflicts_are_found_before_anything_is_written(
    portrait: Path, tmp_path: Path, flags: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "results"
    from batchemo.pipeline import pictures

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pictures, "analyse_pictures", die)
        with pytest.raises(KeyboardInterrupt):
            run_here(portrait, out=out, blur_faces=True, **flags)
    run_here(portrait, out=out)
    assert blurred(out) == {"one.jpg": (True, "pixels")}
    assert not list((out / "report").rglob("*.jpg"))


def test_folders_without_a_marker_are_recognized_by_their_copies_or_last_run(portrait: Path, tmp_path: Path) -> None:
    for name, flags in {"copies": {}, "manifest": {"annotate": False}}.items():
        out = tmp_path / name
        run_here(portrait, out=out, blur_faces=True, **flags)
        (out / MARKER).unlink()
        assert read_blur_state(out).faces, name
    (out / MARKER).write_text("{")
    assert read_blur_state(out).faces, "what cannot be read hides"
    run_here(portrait, out=tmp_path / "plain")
    (tmp_path / "plain" / MARKER).unlink()
    assert not read_blur_state(tmp_path / "plain").faces


def test_copies_of_before_there_was_a_check_are_drawn_again(portrait: Path, tmp_path: Path) -> None:
    from batchemo.results.catalog import read_medium_results
    from batchemo.results.paths import table_path
    from batchemo.results.schema import rewrite_row

    out = tmp_path / "results"
    run_here(portrait, out=out, blur_faces=True)
    entry = read_medium_results(out, "one.jpg")
    assert entry is not None
    assert entry.style is not None
    old = {name: value for name, value in entry.style.items() if name != "blur_style"}
    rewrite_row(table_path(out, "frames", "one.jpg"), entry.row, style=old)
    assert run_here(portrait, out=out).redrawn == ("one.jpg",)


def test_a_killed_run_leaves_no_unblurred_copy_that_counts_as_blurred(
    portrait: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is killed after its unblurred copy has appeared, before the tables say so."""
    from batchemo.pipeline import assemble as assembly

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for flags, owner in (({}, assembly.KeptTables), ({"force": True}, assembly.TableAssembler)):
        out = tmp_path / f"results{len(flags)}"
        run_here(portrait, out=out, blur_faces=True)
        with monkeypatch.context() as patched:
            patched.setattr(owner, "finish", die)
            with pytest.raises(KeyboardInterrupt):
                run_here(portrait, out=out, blur_faces=False, **flags)
        assert (out / "annotated" / "one.jpg.jpg").exists()
        assert run_here(portrait, out=out, blur_faces=True).redrawn == ("one.jpg",)


def pictures_in(out: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Every picture that any file of a folder holds: as a file, hidden or not, or embedded in text."""
    for path in (path for path in out.rglob("*") if path.is_file()):
        content = path.read_bytes()
        inside = [base64.b64decode(found + b"=" * (-len(found) % 4)) for found in re.findall(rb"[A-Za-z0-9+/]{200,}", content)]
        for each in [content, *inside, *filter(None, map(inflated, inside))]:
            for start in (found.start() for found in re.finditer(rb"\xff\xd8\xff|\x89PNG", each)):
                decoded = cv2.imdecode(np.frombuffer(each[start:], np.uint8), cv2.IMREAD_COLOR)
                if decoded is not None:
                    yield path.name, cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.uint8)
        if path.suffix in {".mp4", ".nut"}:
            yield from ((path.name, pixels) for pixels in frames_of(path))


def inflated(content: bytes) -> bytes:
    try:
        return zlib.decompress(content)
    except zlib.error:
        return b""


def test_no_file_of_a_blurred_folder_shows_a_face(tmp_path: Path, mtcnn: Callable[[NDArray[np.uint8]], int]) -> None:
    folder, out = tmp_path / "media", tmp_path / "results"
    folder.mkdir()
    write_video(folder / "video.mp4", [scene(large=(130, 60, 60))] * 2)
    write_jpeg(folder / "one.jpg", scene(large=(130, 60, 60)))
    run_here(folder, out=out)
    # What killed runs leave: copies of segments, and files that were not complete.
    (out / ".parts" / "video.mp4").mkdir(parents=True)
    write_video(out / ".parts" / "video.mp4" / "00000.nut", [scene(large=(130, 60, 60))])
    write_jpeg(out / "annotated" / "left.jpg", scene(large=(130, 60, 60))).rename(out / "annotated" / ".0123456789abcdef-1.part")
    shown = {name for name, pixels in pictures_in(out) if mtcnn(pixels)}
    assert shown == {"video.mp4.mp4", "one.jpg.jpg", "1.jpg", "index.html", "00000.nut", ".0123456789abcdef-1.part"}
    run_here(folder, out=out, blur_faces=True)
    write_site(out)
    assert {name for name, _ in pictures_in(out)} >= {"video.mp4.mp4", "one.jpg.jpg"}
    assert not {name for name, pixels in pictures_in(out) if mtcnn(pixels)}


def test_environment_and_option_files_work_too(tmp_path: Path) -> None:
    (tmp_path / "batchemo.toml").write_text('blur-faces = false\nblur-style = "solid"\n')
    read = {"default_file": tmp_path / "batchemo.toml"}
    options = merge_options({}, environment={}, **read)
    assert (options.blur_faces, options.blur_style) == (False, "solid")
    options = merge_options({}, environment={"BATCHEMO_BLUR_FACES": "1", "BATCHEMO_BLUR_STYLE": "pixels"}, **read)
    assert (options.blur_faces, options.blur_style) == (True, "pixels")
    assert merge_options({}, environment={}).blur_faces is None


def test_jobs_exit_with_3_as_well(media: Path, tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(
        f'inputs = ["{media}"]\nout = "{tmp_path / "out"}"\n[options]\nblur_faces = true\nworkers = 1\nmin_face_px = {LEAST_PX}\n'
    )
    (media / "video.mp4").unlink()
    first = command("jobs", "run", tmp_path / "job.toml", "--json", expect=3)
    assert {each["media"] for each in json.loads(first.stdout)["faces_left"]} == {"picture.jpg"}
    assert "not all blurred picture.jpg" in first.stderr
