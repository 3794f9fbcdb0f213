"""Animated WebP, PNG and AVIF are videos: every frame, complete and upright, with the times that browsers use."""

from __future__ import annotations

import struct
import subprocess
import zlib
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from batchemo.errors import MediaError
from batchemo.media.animation import AnimationSource
from batchemo.media.decode import open_source, split_into_segments
from batchemo.media.frame_times import read_frame_times
from batchemo.media.sniff import sniff
from batchemo.media.source import ReadReport
from batchemo.records import Frame, Medium, Segment
from batchemo.render.timestamps import read_output_clock
from batchemo.verify.media import count_frames

WIDTH, HEIGHT = 64, 48
DURATIONS = (40, 100, 30, 70, 250, 60)  # ms
NAMES = ("a.webp", "a.png", "a.avif")
EXACT: dict[str, dict[str, Any]] = {
    "a.webp": {"lossless": True},
    "a.png": {},
    "a.avif": {"quality": 100, "subsampling": "4:4:4"},
}
WITHIN = {"a.webp": 0, "a.png": 0, "a.avif": 8}


def picture(number: int) -> NDArray[np.uint8]:
    """Red above, blue below; `number` as white bars at the left."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[: HEIGHT // 2] = 200, 30, 30
    pixels[HEIGHT // 2 :] = 30, 30, 200
    for bar in range(number + 1):
        pixels[4 : HEIGHT - 8, 8 * bar : 8 * bar + 4] = 255
    return pixels


PICTURES = [picture(number) for number in range(len(DURATIONS))]


def write(path: Path, pictures: list[Image.Image] | None = None, durations: Any = DURATIONS, **options: Any) -> Path:
    first, *others = pictures or [Image.fromarray(pixels) for pixels in PICTURES]
    first.save(path, save_all=True, append_images=others, duration=list(durations), **EXACT.get(path.name, {}), **options)
    return path


def read(path: Path, **options: Any) -> tuple[list[Frame], ReadReport]:
    source = open_source(Medium(path, path.name, path.name, "video"))
    assert isinstance(source, AnimationSource)
    return list(source.frames(**options)), source.report


def starts_of(durations_ms: Any) -> list[float]:
    return [float(Fraction(start, 1000)) for start in accumulate(durations_ms, initial=0)][:-1]


@pytest.mark.parametrize("name", NAMES)
def test_every_frame_at_its_time(tmp_path: Path, name: str) -> None:
    frames, found = read(write(tmp_path / name))
    assert [frame.index for frame in frames] == list(range(len(DURATIONS)))
    np.testing.assert_allclose([frame.time_s for frame in frames], starts_of(DURATIONS), atol=1e-9)
    for frame, expected in zip(frames, PICTURES, strict=True):
        assert np.abs(frame.pixels.astype(int) - expected).max() <= WITHIN[name]
    assert (found.decoded, found.undecodable, found.missing, found.width, found.height) == (6, 0, 0, WIDTH, HEIGHT)
    assert found.duration_s == found.duration_s == pytest.approx(sum(DURATIONS) / 1000)


@pytest.mark.parametrize("name", NAMES)
def test_all_readers_agree(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    medium = Medium(path, name, name, "video")
    assert sniff(path) == "video"
    assert split_into_segments(medium) == [Segment()]
    count = count_frames(path)
    assert count is not None
    assert (count.total, count.untimed, count.missing) == (6, 0, 0)
    np.testing.assert_allclose(count.times_s, starts_of(DURATIONS), atol=1e-9)
    clock = read_output_clock(path)
    assert (clock.first_frame, clock.end) == (Fraction(0), Fraction(sum(DURATIONS), 1000))
    assert clock.pts(0.04) * clock.time_base == Fraction(40, 1000)


@pytest.mark.parametrize("name", NAMES)
def test_sampling_and_start_index(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    # They are shown at 0, 40, 140, 170, 240 and 490 ms.
    assert [frame.index for frame in read(path, sample_fps=10)[0]] == [0, 2, 4, 5]
    frames, found = read(path, start_index=3)
    assert [frame.index for frame in frames] == [3, 4, 5]
    assert found.decoded == 6


def test_a_single_frame_is_no_video(tmp_path: Path) -> None:
    for name in ("one.webp", "one.png", "one.avif"):
        Image.fromarray(PICTURES[0]).save(tmp_path / name)
        assert sniff(tmp_path / name) == "image"
        assert read_frame_times(tmp_path / name) is None
    Image.fromarray(PICTURES[0]).save(tmp_path / "one_of_one.webp", save_all=True, append_images=[Image.fromarray(PICTURES[0])])
    assert sniff(tmp_path / "one_of_one.webp") == "image"


@pytest.mark.parametrize("name", ["a.webp", "a.png"])
@pytest.mark.parametrize(("stated", "shown"), [(0, 100), (1, 100), (10, 100), (11, 11), (20, 20)])
def test_very_short_frames_last_as_long_as_in_browsers(tmp_path: Path, name: str, stated: int, shown: int) -> None:
    durations = [50, stated, 50, stated]
    path = write(tmp_path / name, [Image.fromarray(pixels) for pixels in PICTURES[:4]], durations)
    frames, found = read(path)
    np.testing.assert_allclose([frame.time_s for frame in frames], starts_of([50, shown, 50, shown]), atol=1e-9)
    assert found.duration_s == pytest.approx(2 * (0.05 + shown / 1000))


def test_times_are_exact_where_milliseconds_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write(path, durations=[100] * 6)
    content = bytearray(path.read_bytes())
    at = 0
    while (at := content.find(b"fcTL", at + 1)) > 0:  # thirds of a second's hundredth
        content[at + 24 : at + 28] = struct.pack(">HH", 1, 30)
        content[at + 30 : at + 34] = struct.pack(">I", zlib.crc32(bytes(content[at : at + 30])))
    path.write_bytes(content)
    assert [frame.time_s for frame in read(path)[0]] == [float(Fraction(number, 30)) for number in range(6)]


def test_the_default_image_of_a_png_is_no_frame(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (WIDTH, HEIGHT), "green"), *(Image.fromarray(pixels) for pixels in PICTURES)]
    path = write(tmp_path / "a.png", pictures, default_image=True)
    frames, _ = read(path)
    assert [frame.time_s for frame in frames] == starts_of(DURATIONS)
    for frame, expected in zip(frames, PICTURES, strict=True):
        np.testing.assert_array_equal(frame.pixels, expected)


@pytest.mark.parametrize("name", NAMES)
def test_transparency_is_on_white(tmp_path: Path, name: str) -> None:
    """Each frame replaces the previous one, which must not shine through."""
    pictures = []
    for number in range(3):
        alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
        alpha[:, 16 * number : 16 * number + 16] = 255
        pictures.append(Image.fromarray(np.dstack([PICTURES[0] // 2, alpha])))
    options: dict[str, Any] = {"disposal": 1, "blend": 0} if name == "a.png" else {}
    frames, _ = read(write(tmp_path / name, pictures, DURATIONS[:3], **options))
    assert len(frames) == 3
    for number, frame in enumerate(frames):
        seen = np.asarray((frame.pixels > 245).all(axis=2))
        assert seen[:, 16 * number + 2 : 16 * number + 14].mean() < 0.01
        assert seen[:, : max(0, 16 * number - 2)].all()
        assert seen[:, 16 * number + 18 :].all()


@pytest.mark.parametrize("name", ["a.webp", "a.png"])  # Pillow 13.0 ends the process when it saves AVIF sequences with EXIF
def test_orientation(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = [Image.fromarray(np.ascontiguousarray(np.rot90(pixels))) for pixels in PICTURES]
    frames, found = read(write(tmp_path / name, stored, exif=exif))
    assert (found.width, found.height) == (WIDTH, HEIGHT)
    for frame, expected in zip(frames, PICTURES, strict=True):
        assert np.abs(frame.pixels.astype(int) - expected).max() <= WITHIN[name]


@pytest.mark.parametrize("name", NAMES)
def test_frames_that_change_a_part_only_are_complete(tmp_path: Path, name: str) -> None:
    """Compared with Pillow's other way of reading, and with the GIF that FFmpeg makes of the same frames."""
    base = Image.fromarray(PICTURES[0]).quantize(8).convert("RGB")
    pictures = [base.copy() for _ in range(5)]
    for number, each in enumerate(pictures):
        each.paste((255, 255, 255), (8 * number, 8, 8 * number + 8, 24))
    frames, _ = read(write(tmp_path / name, pictures, [100] * 5))
    with Image.open(tmp_path / name) as again:
        for frame, other in zip(frames, [frame.copy() for frame in ImageSequence.Iterator(again)], strict=True):
            np.testing.assert_array_equal(frame.pixels, np.asarray(other.convert("RGB")))
    write(tmp_path / "same.gif", pictures, [100] * 5)
    gif = list(open_source(Medium(tmp_path / "same.gif", "same.gif", "same.gif", "video")).frames())
    for frame, other_frame in zip(frames, gif, strict=True):
        assert frame.time_s == pytest.approx(other_frame.time_s)
        assert np.abs(frame.pixels.astype(int) - other_frame.pixels).max() <= WITHIN[name] + 2


@pytest.mark.needs("ffmpeg")
def test_apng_agrees_with_ffmpeg(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png")
    raw = subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "apng", "-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        capture_output=True,
        check=True,
    ).stdout
    expected = np.frombuffer(raw, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(np.stack([frame.pixels for frame in read(path)[0]]), expected)


def test_webp_durations_are_those_of_its_chunks(tmp_path: Path) -> None:
    content = write(tmp_path / "a.webp").read_bytes()
    durations, at = [], 12
    while at < len(content):
        name, length = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        if name == b"ANMF":
            durations.append(int.from_bytes(content[at + 20 : at + 23], "little"))
        at += 8 + length + length % 2
    assert durations == list(DURATIONS)
    times = read_frame_times(tmp_path / "a.webp")
    assert times is not None
    assert times.durations == tuple(Fraction(duration, 1000) for duration in durations)


# Damage


@pytest.mark.parametrize("name", ["a.webp", "a.png"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_truncated_animations_are_read_up_to_their_end(tmp_path: Path, name: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (6, HEIGHT, WIDTH, 3), np.uint8)
    path = write(tmp_path / name, [Image.fromarray(each) for each in noise])
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    frames, found = read(path)
    assert 2 <= found.decoded < 6
    for frame, expected in zip(frames[: found.decoded], noise, strict=False):
        np.testing.assert_array_equal(frame.pixels, expected)
    assert found.missing or found.undecodable
    assert sniff(path) == "video"


@pytest.mark.parametrize("name", NAMES)
def test_damage_from_the_start_is_reported(tmp_path: Path, name: str) -> None:
    content = bytearray(write(tmp_path / name).read_bytes())
    mark, behind = {"a.webp": (b"ANMF", 26), "a.png": (b"IDAT", 4), "a.avif": (b"mdat", 4)}[name]
    start = content.index(mark) + behind
    content[start : start + 40] = b"\xa5" * 40
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MediaError) as caught:
        read(tmp_path / name)
    assert caught.value.kind in ("no_frames", "damaged")
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_truncated_headers_raise_no_other_error(tmp_path: Path, name: str) -> None:
    content = write(tmp_path / name).read_bytes()
    for end in range(0, min(len(content), 900), 7):
        (tmp_path / name).write_bytes(content[:end])
        read_frame_times(tmp_path / name)
        assert sniff(tmp_path / name) in ("image", "video", None)


def test_a_file_that_is_gone_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="not there any more"):
        AnimationSource(tmp_path / "a.webp").count()


def test_frames_are_decoded_on_demand(tmp_path: Path) -> None:
    source = AnimationSource(write(tmp_path / "a.webp"))
    frames = source.frames()
    next(frames)
    assert source.report.decoded == 0
    next(frames)
    assert source.report.decoded == 1
