"""Annotated videos in a real Chromium: they play, can be sought in, and show the colours that were drawn."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest

from batchemo.options import Codec
from batchemo.render.encoders import encoder_of
from batchemo.render.video_writer import VideoWriter, join_videos
from batchemo.yuv import Planes
from tests.browser import Browser
from tests.made_media import shades, write_clip

pytestmark = pytest.mark.needs("chromium")

WIDTH, HEIGHT, FPS, FRAMES = 160, 96, 25, 50
COLOURS = ((213, 94, 0), (0, 114, 178))
"""Of the first and the second half."""

_PAGE = """<!doctype html><html><body><video muted></video><canvas></canvas><script>
document.documentElement.dataset.ready = "yes";
const video = document.querySelector("video");
window.colour = () => {
  const canvas = document.querySelector("canvas");
  canvas.width = video.videoWidth; canvas.height = video.videoHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(video, 0, 0);
  return [...context.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data].slice(0, 3);
};
</script></body></html>"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "source.mp4"
    return write_clip(path, shades(FRAMES, (WIDTH, HEIGHT), step=0), codec="mpeg4", rate=FPS).path


def write(path: Path, source: Path, codec: Codec, frames: range, *, whole: bool) -> Path:
    encoder = encoder_of(codec, quality="medium", hardware=False)
    with VideoWriter(path, source=source, width=WIDTH, height=HEIGHT, encoder=encoder, whole=whole) as writer:
        for index in frames:
            writer.write(Planes.from_rgb(np.full((HEIGHT, WIDTH, 3), COLOURS[index >= FRAMES // 2], np.uint8)), index / FPS)
    return path


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("codec", ["h264", "av1", "vp9"])
def test_it_plays_with_the_right_colours(browser: Browser, source: Path, tmp_path: Path, codec: Codec, joined: bool) -> None:
    path = tmp_path / "copy.mp4"
    if joined:
        parts = [
            write(tmp_path / f"{start}.nut", source, codec, range(start, start + 20), whole=False) for start in range(0, FRAMES - 10, 20)
        ]
        parts.append(write(tmp_path / "end.nut", source, codec, range(40, FRAMES), whole=False))
        join_videos(parts, path, source=source)
    else:
        write(path, source, codec, range(FRAMES), whole=True)
    (tmp_path / "page.html").write_text(_PAGE)
    browser.open((tmp_path / "page.html").as_uri())
    # From memory, because a page from the disk may not look at pixels of other files.
    browser.run(
        "const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));"
        "document.querySelector('video').src = URL.createObjectURL(new Blob([bytes], { type: 'video/mp4' }))",
        _base64(path),
    )
    browser.wait("return video.readyState >= 2 || video.error !== null")
    assert browser.run("return video.error && video.error.message") is None
    assert browser.run("return video.duration") == pytest.approx(FRAMES / FPS, abs=0.01)
    for time_s, colour in ((0.5, COLOURS[0]), (1.5, COLOURS[1])):
        browser.run("video.currentTime = arguments[0]", time_s)
        browser.wait("return !video.seeking && video.readyState >= 2")
        assert browser.run("return colour()") == pytest.approx(colour, abs=6)
    browser.run("video.currentTime = 0.2; video.play()")
    browser.wait("return video.currentTime > 0.3")


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
