"""Videos whose pictures begin later or earlier than their sound: whatever leads to a player shows the frame that it is about."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pympi
import pytest
import webvtt
from numpy.typing import NDArray
from selenium.webdriver.common.keys import Keys

import batchemo
from batchemo.analysis.export.formats import export_results
from batchemo.verify.audit import verify
from tests.browser import Browser
from tests.made_media import read_pixels
from tests.running import run_here

SAMPLES = Path(__file__).parents[1] / "sample_media"
FPS, FRAMES, BITS = 12, 24, 8
BLOCK_PX = 40
"""Side of the black and white squares along the upper edge that say which frame it is."""

pytestmark = pytest.mark.needs("ffmpeg")


def numbered() -> NDArray[np.uint8]:
    """Frames of two people, each with its number: N x H x W x 3."""
    with av.open(str(SAMPLES / "two_people_and_a_cut.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame, _ in zip(container.decode(video=0), range(FRAMES), strict=False)]
    pixels = np.stack(frames).astype(np.uint8)
    for number, frame in enumerate(pixels):
        for bit in range(BITS):
            frame[:BLOCK_PX, bit * BLOCK_PX : (bit + 1) * BLOCK_PX] = 255 * (number >> bit & 1)
    return pixels


def number_in(picture: NDArray[Any]) -> int:
    """The number in the upper left of a picture, of whatever size."""
    side = picture.shape[1] * BLOCK_PX / 640
    return sum((picture[round(side / 2), round((bit + 0.5) * side)].mean() > 128) << bit for bit in range(BITS))


def make_video(path: Path, pixels: NDArray[np.uint8], *, pictures_s: float = 0, sound_s: float = 0) -> Path:
    size = f"{pixels.shape[2]}x{pixels.shape[1]}"
    pictures = ["-itsoffset", str(pictures_s), "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-framerate", str(FPS), "-i", "-"]
    sound = ["-itsoffset", str(sound_s), "-f", "lavfi", "-i", "sine=440:sample_rate=48000:duration=6"]
    codecs = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", str(FPS), "-vsync", "passthrough", "-c:a", "aac"]
    command = ["ffmpeg", "-v", "error", *pictures, *sound, *codecs, str(path)]
    subprocess.run(command, input=pixels.tobytes(), check=True, timeout=60)
    return path


def shown_at(path: Path) -> float:
    """When a player shows the first picture of a file, as ffprobe has it."""
    command = ["ffprobe", "-v", "error", "-show_entries", "stream=codec_type,start_time", "-of", "json", str(path)]
    streams = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)["streams"]
    starts = {stream["codec_type"]: float(stream["start_time"]) for stream in streams}
    return starts["video"] - min(starts.values())


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, pixels = tmp_path_factory.mktemp("videos"), numbered()
    make_video(folder / "empty_edit.mp4", pixels, pictures_s=2)
    make_video(folder / "late.ts", pixels, pictures_s=2)
    make_video(folder / "late_sound.mkv", pixels, sound_s=1.5)
    return folder


@pytest.fixture(scope="module")
def results(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("all")
    run_here(videos, out=out)
    return out


@pytest.fixture(scope="module")
def sampled(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames a second."""
    out = tmp_path_factory.mktemp("sampled")
    run_here(videos / "empty_edit.mp4", out=out, sample_fps=4)
    return out


def row_of(results: Path, name: str) -> dict[str, Any]:
    (row,) = batchemo.load(results, table="media", where=[("media", "==", name)]).to_dict("records")
    return {str(key): value for key, value in row.items()}


# Tables, copies and what is exported


@pytest.mark.parametrize(("name", "about_s"), [("empty_edit.mp4", 2), ("late.ts", 2), ("late_sound.mkv", 0)])
def test_the_row_says_when_the_first_frame_is_shown(videos: Path, results: Path, name: str, about_s: float) -> None:
    starts_s = row_of(results, name)["starts_s"]
    assert starts_s == pytest.approx(shown_at(videos / name), abs=0.001)
    assert starts_s == pytest.approx(about_s, abs=0.05)
    frames = batchemo.load(results, table="frames", where=[("media", "==", name)])
    assert frames["time_s"].tolist() == pytest.approx([number / FPS for number in range(FRAMES)], abs=0.001), "tables count from it"


@pytest.mark.parametrize("name", ["empty_edit.mp4", "late.ts", "late_sound.mkv"])
def test_frames_of_copies_are_shown_at_their_times(results: Path, sampled: Path, name: str) -> None:
    for folder in (results, sampled):
        frames = batchemo.load(folder, table="frames", where=[("media", "==", name)])
        if len(frames):
            with av.open(str(folder / "annotated" / f"{name}.mp4")) as container:
                shown = [(number_in(frame.to_ndarray(format="rgb24")), frame.time) for frame in container.decode(video=0)]
            assert [number for number, _ in shown] == frames["frame_index"].tolist()
            assert [time for _, time in shown] == pytest.approx((frames["time_s"] + row_of(folder, name)["starts_s"]).tolist(), abs=0.001)


def test_exports_are_on_the_players_clock(results: Path) -> None:
    """Captions of the copies, and annotations of the sources."""
    captions, annotations = export_results(results, "webvtt"), export_results(results, "eaf")
    assert len(captions.files) == 3
    for caption, annotation in zip(captions.files, annotations.files, strict=True):
        name = caption.name.removesuffix(".vtt")
        episodes = batchemo.load(results, table="episodes", where=[("media", "==", name)])
        starts = sorted(episodes["start_s"] + row_of(results, name)["starts_s"])
        assert starts
        cues = [cue.start_in_seconds + cue.start_time.milliseconds / 1000 for cue in webvtt.read(str(caption)).captions]
        assert cues == pytest.approx(starts, abs=0.001)
        document = pympi.Elan.Eaf(annotation)
        reported = sorted(start for tier in document.get_tier_names() for start, *_ in document.get_annotation_data_for_tier(tier))
        assert reported == pytest.approx([1000 * start for start in starts], abs=1)


def test_verify_finds_a_copy_on_another_clock(results: Path, tmp_path: Path) -> None:
    assert verify(results, deep=True).problems == ()
    early = tmp_path / "early.mp4"
    copy = results / "annotated" / "empty_edit.mp4.mp4"
    command = ["ffmpeg", "-v", "error", "-i", str(copy), "-map", "0:v", "-c", "copy", "-output_ts_offset", "-1", str(early)]
    subprocess.run(command, check=True, timeout=60)
    content = copy.read_bytes()
    try:
        copy.write_bytes(early.read_bytes())
        assert {(problem.kind, problem.media) for problem in verify(results).problems} == {("annotated", "empty_edit.mp4")}
    finally:
        copy.write_bytes(content)


def test_pictures_have_no_clock_and_what_cannot_be_read_has_no_start(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    blank = np.full((48, 64, 3), 90, np.uint8)
    cv2.imwrite(str(folder / "still.png"), blank)
    (folder / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    pictures = "testsrc=size=64x48:rate=10:duration=1"
    subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", pictures, folder / "moving.gif"], check=True, timeout=60)
    out = tmp_path / "out"
    run_here(folder, out=out, report=False)
    starts = batchemo.load(out, table="media").set_index("media")["starts_s"]
    assert (starts["still.png"], starts["moving.gif"]) == (0, 0)
    assert np.isnan(starts["broken.mp4"])


# The page


def frame_on(browser: Browser, path: Path) -> int:
    """The number of the frame that is to be seen: pages from the disk may not look at their videos' pixels, but a screenshot shows them."""
    browser.save_screenshot(path)
    place = browser.run("return document.querySelector('video').getBoundingClientRect()")
    left, top, width, height = (round(place[name]) for name in ("x", "y", "width", "height"))
    return number_in(read_pixels(path)[top : top + height, left : left + width])


def assert_shows(browser: Browser, expected: int, folder: Path) -> None:
    """Once the browser has come so far."""
    browser.wait("const video = document.querySelector('video'); return !video.seeking && video.readyState >= 2")
    for _ in range(20):
        if (seen := frame_on(browser, folder / "page.png")) == expected:
            return
    raise AssertionError(f"shows frame {seen}, not {expected}")


@pytest.mark.needs("chromium")
@pytest.mark.parametrize("name", ["empty_edit.mp4", "late.ts", "late_sound.mkv", "sampled"])
def test_a_click_shows_the_frame_that_it_is_about(browser: Browser, results: Path, sampled: Path, tmp_path: Path, name: str) -> None:
    folder, name = (sampled, "empty_edit.mp4") if name == "sampled" else (results, name)
    row, frames = row_of(folder, name), batchemo.load(folder, table="frames", where=[("media", "==", name)])
    shown_s = (frames["time_s"] + row["starts_s"]).to_numpy()
    browser.open(f"{(folder / 'report' / 'index.html').as_uri()}#medium={name}")
    browser.wait("return document.querySelector('.track') && document.querySelector('video').readyState >= 1")
    # The card: its chart reaches from the player's 0 to the end of the pictures.
    length_s = row["starts_s"] + row["duration_s"]
    width = browser.run("return document.querySelector('.chart').clientWidth")
    for time_s in (shown_s[0] + 0.04, shown_s[-1] - 0.7, shown_s[-1] + 0.04):
        browser.click(".chart", x=round(38 + time_s / length_s * (width - 50) - width / 2))
        assert_shows(browser, int(frames["frame_index"][np.flatnonzero(shown_s <= time_s)[-1]]), tmp_path)
        assert browser.run("return document.querySelector('video').currentTime") == pytest.approx(time_s, abs=0.01)
        reported = browser.run("return document.querySelector('.now').textContent")
        assert float(reported.split(" of ")[0].removeprefix("0:")) == pytest.approx(time_s, abs=0.02)
    # The face of a person leads to their best view.
    best = batchemo.load(folder, table="tracks", where=[("media", "==", name)]).set_index("track_id")["best_frame_index"]
    person = int(browser.run("return document.querySelector('.track h2').textContent").removeprefix("Person "))
    browser.click(".track .portrait")
    assert_shows(browser, int(best[person]), tmp_path)
    # The keyboard goes from frame to frame, and an episode begins with its own.
    browser.run("document.querySelector('.chart').focus()")
    browser.press(Keys.HOME)
    assert_shows(browser, 0, tmp_path)
    browser.press(Keys.ARROW_RIGHT)
    assert_shows(browser, int(frames["frame_index"][1]), tmp_path)
    browser.run("document.querySelector('details').open = true")
    browser.click("details .link")
    assert_shows(browser, 0, tmp_path)
    assert browser.run("return document.querySelector('video').currentTime") == pytest.approx(row["starts_s"], abs=0.005)
    assert ("(time 0 in the tables)" in browser.run("return document.querySelector('.facts').textContent")) == (row["starts_s"] > 1)
