"""Codecs, qualities and hardware of annotated videos."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from batchemo.options import Codec, Quality
from batchemo.render import encoders
from batchemo.render.encoders import CODEC_NAMES, Encoder, encoder_of, find_hardware
from batchemo.render.video_writer import VideoWriter, join_videos
from batchemo.yuv import Planes
from tests.made_media import MadeClip, silence, write_clip

WIDTH, HEIGHT, FPS, FRAMES = 128, 96, 25, 12


def scene(index: int) -> np.ndarray:
    noise = np.random.default_rng(1).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    return np.roll(noise.repeat(8, axis=0).repeat(8, axis=1), index, axis=1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> MadeClip:
    """With sound, and frames that are not shown for equally long."""
    stamps = [index + (index > 5) for index in range(FRAMES)]
    path = tmp_path_factory.mktemp("source") / "source.mp4"
    return write_clip(path, map(scene, range(FRAMES)), codec="mpeg4", rate=FPS, stamps=stamps, sound=silence(0.512))


def write(path: Path, source: MadeClip, encoder: Encoder, *, frames: range = range(FRAMES), whole: bool = True) -> Path:
    with VideoWriter(path, source=source.path, width=WIDTH, height=HEIGHT, encoder=encoder, whole=whole) as writer:
        for index in frames:
            writer.write(Planes.from_rgb(source.pictures[index]), source.times_s[index])
    return path


def check(path: Path, codec: Codec, source: MadeClip) -> None:
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert context.name == ("libdav1d" if codec == "av1" else codec)
        assert codec != "hevc" or context.codec_tag == "hvc1"
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx(source.times_s, abs=1e-4)
    for frame, picture in zip(frames, source.pictures, strict=True):
        assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - picture).mean() < 25, "the frames are in their order"
    with av.open(str(path)) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) >= 8192


@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_every_codec_in_one_go_and_in_segments(codec: Codec, source: MadeClip, tmp_path: Path) -> None:
    encoder = encoder_of(codec, quality="medium", hardware=False)
    check(write(tmp_path / "whole.mp4", source, encoder), codec, source)
    parts = [
        write(tmp_path / f"{start}.nut", source, encoder, frames=range(start, min(start + 5, FRAMES)), whole=False)
        for start in range(0, FRAMES, 5)
    ]
    join_videos(parts, tmp_path / "joined.mp4", source=source.path)
    check(tmp_path / "joined.mp4", codec, source)


@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_finer_is_larger(codec: Codec, source: MadeClip, tmp_path: Path) -> None:
    qualities: tuple[Quality, ...] = ("low", "medium", "high")
    sizes = [
        write(tmp_path / f"{quality}.mp4", source, encoder_of(codec, quality=quality, hardware=False)).stat().st_size
        for quality in qualities
    ]
    assert sizes == sorted(set(sizes))


def test_missing_hardware_is_skipped() -> None:
    """The machine that runs this may have hardware encoders; then they must work."""
    found = find_hardware("h264")
    chosen = encoder_of("h264", quality="medium", hardware=True)
    assert chosen.name == (found.name if found else "libx264")


def test_working_hardware_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_can_encode", lambda encoder: encoder.name == "h264_qsv")
    find_hardware.cache_clear()
    try:
        assert encoder_of("h264", quality="high", hardware=True).name == "h264_qsv"
        assert encoder_of("h264", quality="high", hardware=False).name == "libx264"
        assert encoder_of("vp9", quality="high", hardware=True).name == "libvpx-vp9"
    finally:
        find_hardware.cache_clear()


def test_the_probe_recognizes_working_encoders() -> None:
    assert encoders._can_encode(encoder_of("h264", quality="medium", hardware=False))
    assert not encoders._can_encode(Encoder("libx264", {"preset": "no such preset"}))
