"""Thumbnails show each track's best frame: the right frame, the right place, upright; and they never fail a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from batchemo.media.decode import open_source
from batchemo.records import Faces, Medium
from batchemo.render.thumbnails import MAX_THUMBNAILS, SIDE_PX, _crop_square, crop_thumbnails, write_thumbnails
from batchemo.results.paths import thumbnails_folder
from batchemo.run.run import RunResult
from tests.made_media import shades, write_clip
from tests.made_results import CLIP, PICTURE, write_medium
from tests.running import run_here

SAMPLES = Path(__file__).parents[2] / "sample_media"
FRAMES = 112
UNSURE, SURE = ("happy", 0.6), ("happy", 0.9)


def thumbnail(results: Path, medium: Medium, track_id: int) -> NDArray[np.uint8]:
    found = cv2.imread(str(thumbnails_folder(results, medium.output) / f"{track_id}.jpg"))
    assert found is not None
    return np.asarray(found, np.uint8)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.mov", "mpeg4"), ("a.ts", "mpeg2video")])
def test_thumbnails_show_the_best_frame(tmp_path: Path, name: str, codec: str) -> None:
    medium = Medium(tmp_path / name, name, name, "video")
    # Each frame has a grey of its own; key frames lie far apart.
    clip = write_clip(medium.path, shades(FRAMES, (640, 360), first=20, step=2), codec=codec, rate=24, options={"g": "50", "bf": "2"})
    times = [frame.time_s for frame in open_source(medium, decoder="pyav").frames()]
    people = [[UNSURE, UNSURE, UNSURE, SURE], [SURE, UNSURE], [UNSURE, UNSURE, UNSURE, UNSURE, UNSURE, UNSURE, UNSURE, SURE]]
    write_medium(tmp_path / "results", medium, people, run_id="x", frames=len(times), times=times)
    assert write_thumbnails(medium, tmp_path / "results") == 3
    for track_id, best in ((1, 84), (2, 0), (3, 98)):
        face = thumbnail(tmp_path / "results", medium, track_id)
        assert face.shape == (SIDE_PX, SIDE_PX, 3)
        assert face.mean() == pytest.approx(clip.pictures[best].mean(), abs=1.5), "its frame"


def test_thumbnails_show_the_face(tmp_path: Path) -> None:
    medium = Medium(tmp_path / "a.png", "a.png", "a.png", "image")
    pixels = np.zeros((360, 640, 3), np.uint8)
    pixels[80:200, 300:400] = (0, 0, 255)  # the second person's box
    cv2.imwrite(str(medium.path), pixels)
    write_medium(tmp_path, medium, [[SURE], [SURE]], run_id="x", frames=1)
    assert write_thumbnails(medium, tmp_path) == 2
    blue, _, red = thumbnail(tmp_path, medium, 2)[SIDE_PX // 2, SIDE_PX // 2].tolist()
    assert red > 240
    assert blue < 15
    assert thumbnail(tmp_path, medium, 1)[SIDE_PX // 2, SIDE_PX // 2].max() < 15


@pytest.mark.parametrize("side", [100, 274, 275, 600, 1100])
def test_large_faces_are_downscaled_like_area_means(side: int) -> None:
    rows, columns = np.mgrid[:1200, :1300]
    pixels = np.stack([rows / 5, columns / 6, 255 - rows / 5], axis=-1).astype(np.uint8)
    cut = _crop_square(pixels, (90, 40, 90 + side / 1.4, 40 + side / 1.4))
    left, top = (round(edge + side / 2.8 - side / 2) for edge in (90, 40))
    left, top = max(left, 0), max(top, 0)
    expected = cv2.resize(pixels[top : top + side, left : left + side], (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    assert np.abs(cut.astype(int) - expected).max() <= 2


def test_crowds_cost_no_more_than_the_longest_tracks(tmp_path: Path) -> None:
    medium = Medium(tmp_path / "a.jpg", "a.jpg", "a.jpg", "image")
    cv2.imwrite(str(medium.path), np.zeros((360, 640, 3), np.uint8))
    write_medium(tmp_path, medium, [[SURE]] * (MAX_THUMBNAILS + 5), run_id="x", frames=1)
    assert write_thumbnails(medium, tmp_path) == MAX_THUMBNAILS
    # The first ones, as those that are cut while the picture is at hand.
    written = {path.name for path in thumbnails_folder(tmp_path, medium.output).iterdir()}
    assert written == {f"{number}.jpg" for number in range(1, MAX_THUMBNAILS + 1)}
    boxes = np.tile(np.array([[10, 10, 60, 60]], np.float32), (MAX_THUMBNAILS + 5, 1))
    faces = Faces(boxes, np.zeros((len(boxes), 5, 2), np.float32), np.ones(len(boxes), np.float32))
    assert len(crop_thumbnails(np.zeros((360, 640, 3), np.uint8), faces)) == MAX_THUMBNAILS


def test_a_medium_that_cannot_be_read_again_is_no_failure(tmp_path: Path) -> None:
    medium = Medium(tmp_path / "a.mp4", "a.mp4", "a.mp4", "video")
    write_medium(tmp_path, medium, [[SURE]], run_id="x", frames=10)
    assert write_thumbnails(medium, tmp_path) == 0
    medium.path.write_bytes(CLIP.read_bytes()[:3000])
    assert write_thumbnails(medium, tmp_path) == 0
    assert not thumbnails_folder(tmp_path, medium.output).exists()


def test_thumbnails_exist_only_while_the_report_shows_them(tmp_path: Path) -> None:
    media, out = tmp_path / "media", tmp_path / "results"
    media.mkdir()
    for name in ("a.jpg", "b.jpg"):
        shutil.copyfile(PICTURE, media / name)

    def run_again(**flags: object) -> RunResult:
        return run_here(media, out=out, annotate=False, **flags)

    assert run_again(report=False).page is None
    assert not (out / "report").exists()
    page = run_again(force=True).page
    assert page is not None
    assert page.is_file()
    thumbnails = [thumbnails_folder(out, name) / "1.jpg" for name in ("a.jpg", "b.jpg")]
    assert all(path.is_file() for path in thumbnails)
    (media / "a.jpg").unlink()
    run_again(report=False, prune=True)
    assert [path.is_file() for path in thumbnails] == [False, True]
    assert not page.exists(), "it held the face of what was pruned"
    run_again(report=False, force=True)
    assert not thumbnails[1].exists(), "tracks may be numbered in another way now"


def test_thumbnails_of_a_picture_equal_those_from_its_tables(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    people = np.asarray(cv2.imread(str(SAMPLES / "eileen_collins.jpg")))
    other = np.asarray(cv2.imread(str(SAMPLES / "grace_hopper.jpg")))
    other = cv2.resize(other, (round(other.shape[1] * len(people) / len(other)), len(people)), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(folder / "both.png"), np.concatenate([people, np.asarray(other)], axis=1))
    cv2.imwrite(str(folder / "nobody.png"), np.zeros((200, 300, 3), np.uint8))
    run_here(folder, out=tmp_path / "out", annotate=False)
    medium = Medium(folder / "both.png", "both.png", "both.png", "image")
    written = {path.name: path.read_bytes() for path in thumbnails_folder(tmp_path / "out", medium.output).iterdir()}
    assert set(written) == {"1.jpg", "2.jpg"}
    assert not thumbnails_folder(tmp_path / "out", "nobody.png").exists()
    shutil.rmtree(thumbnails_folder(tmp_path / "out", medium.output))
    assert write_thumbnails(medium, tmp_path / "out") == 2
    assert {path.name: path.read_bytes() for path in thumbnails_folder(tmp_path / "out", medium.output).iterdir()} == written
