"""Frames of videos: the same from every decoder, with the container's timestamps, upright, and complete despite damage."""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib.util
import io
import os
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path, PosixPath
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from batchemo.errors import MediaError, UsageError
from batchemo.media import container
from batchemo.media import decode as opening
from batchemo.media.decode import Decoder, open_source
from batchemo.media.packet_index import read_packet_index
from batchemo.media.source import ReadReport, Sampler
from batchemo.records import Frame, Medium
from tests import made_media
from tests.needs import need

TICK = Fraction(1, 12_800)
STEADY = tuple(512 * i for i in range(30))  # 25 frames a second
UNSTEADY = (0, 175, 512, 1200, 1210, 2900, 6400, 6913, 7000, 12_801)
RED, GREEN, BLUE, BLACK = (200, 30, 30), (40, 180, 40), (30, 30, 200), (0, 0, 0)
CLIP = Path(__file__).parents[3] / "shared" / "media"

pytestmark = pytest.mark.filterwarnings("error")
both = pytest.mark.parametrize(
    "decoder",
    [
        pytest.param("decord", marks=pytest.mark.needs("decord")),
        "pyav",
    ],
)


def picture(index: int, width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """Red, green and blue quarters; the black one shows `index` as six bars."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = RED
    pixels[: height // 2, width // 2 :] = GREEN
    pixels[height // 2 :, width // 2 :] = BLUE
    for bit in range(6):
        if index >> bit & 1:
            pixels[height // 2 + 4 : height - 4, 2 + bit * 8 : 8 + bit * 8] = 255
    return pixels


def shown(frame: Frame) -> int:
    """The index that `picture` drew into the frame."""
    return sum(1 << bit for bit in range(6) if frame.pixels[52, 4 + bit * 8].mean() > 128)


def write_clip(
    path: Path,
    stamps: Sequence[int] = STEADY,
    *,
    size: tuple[int, int] = (96, 64),
    tick: Fraction = TICK,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    rotation: int = 0,
    reordered: int = 0,
    noisy: bool = False,
    **muxer: str,
) -> Path:
    """One frame at each of the PTS `stamps`; a key frame every 12; `reordered` B-frames in a row; `noisy` frames are large."""
    noise = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), np.uint8)
    pictures = [np.roll(noise, 2 * index, 1) if noisy else picture(index, *size) for index in range(len(stamps))]
    kind = {"codec": codec, "pixel_format": pixel_format, "gop_size": 12, "max_b_frames": reordered}
    return made_media.write_clip(path, pictures, stamps=stamps, tick=tick, rotation=rotation, muxer=muxer, **kind).path  # type: ignore[arg-type]


def read(path: Path, decoder: Decoder = "pyav", *, sample_fps: float | None = None, start_index: int = 0) -> tuple[list[Frame], ReadReport]:
    source = open_source(Medium(path, path.name, path.name, "video"), decoder=decoder)
    frames = list(source.frames(sample_fps=sample_fps, start_index=start_index))
    return frames, source.report


def decoder_of(path: Path) -> str:
    source = open_source(Medium(path, path.name, path.name, "video"))
    list(source.frames())
    return source.decoder


def failure(path: Path, decoder: Decoder = "auto") -> MediaError:
    with pytest.raises(MediaError) as caught:
        read(path, decoder)
    assert str(path) in str(caught.value)
    return caught.value


def assert_same(path: Path, **options: float) -> list[Frame]:
    need("decord")
    (by_decord, found_decord), (by_pyav, found_pyav) = (read(path, name, **options) for name in ("decord", "pyav"))  # type: ignore[arg-type]
    assert [(f.index, f.time_s) for f in by_decord] == [(f.index, f.time_s) for f in by_pyav]
    for one, other in zip(by_decord, by_pyav, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
    for name in ("decoded", "undecodable", "missing", "width", "height", "duration_s"):
        assert getattr(found_decord, name) == getattr(found_pyav, name)
    return by_pyav


# Times, order, orientation


@pytest.mark.parametrize("stamps", [STEADY, UNSTEADY, [6400 + stamp for stamp in UNSTEADY]], ids=["steady", "unsteady", "late start"])
@pytest.mark.parametrize("reordered", [0, 3])
def test_times_are_the_containers_less_the_first_frames(tmp_path: Path, stamps: Sequence[int], reordered: int) -> None:
    frames = assert_same(write_clip(tmp_path / "a.mp4", stamps, reordered=reordered))
    assert [frame.time_s for frame in frames] == [float((stamp - stamps[0]) * TICK) for stamp in stamps]
    assert [frame.index for frame in frames] == [shown(frame) for frame in frames] == list(range(len(stamps)))


@pytest.mark.parametrize(
    ("name", "codec", "tick", "stamps"),
    [
        ("a.mkv", "libx264", Fraction(1, 1000), [0, 14, 40, 94, 500, 501]),
        ("a.mkv", "libx265", Fraction(1, 1000), [0, 14, 40, 94, 500, 501]),
        ("a.mov", "libx264", TICK, STEADY),
        ("a.mov", "libx265", TICK, STEADY),
    ],
)
def test_every_container_gives_the_same_frames_from_both_decoders(
    tmp_path: Path, name: str, codec: str, tick: Fraction, stamps: Sequence[int]
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no {codec} here")
    frames = assert_same(write_clip(tmp_path / name, stamps, codec=codec, tick=tick, reordered=2, size=(128, 96)))
    assert [frame.time_s for frame in frames] == [float((stamp - stamps[0]) * tick) for stamp in stamps]
    assert read(tmp_path / name)[1].decoded == len(stamps)
    assert decoder_of(tmp_path / name) == "decord"


@pytest.mark.parametrize(
    ("name", "codec", "tick", "stamps"),
    [
        ("a.webm", "libvpx", Fraction(1, 1000), [0, 14, 40, 94, 500, 501]),
        ("a.webm", "libvpx-vp9", Fraction(1, 1000), [300, 314, 340, 394]),
        ("a.avi", "mpeg4", Fraction(1, 25), range(20)),
        ("b.avi", "libx264", Fraction(1, 25), range(20)),
        ("a.mkv", "ffv1", Fraction(1, 1000), range(20)),
        ("deep.mp4", "libx264", TICK, STEADY),
    ],
)
def test_auto_reads_with_pyav_what_decord_may_misrender(
    tmp_path: Path, name: str, codec: str, tick: Fraction, stamps: Sequence[int]
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no {codec} here")
    reordered, pixel_format = 2 * (codec in ("mpeg4", "libx264")), "yuv420p10le" if name == "deep.mp4" else "yuv420p"
    path = write_clip(tmp_path / name, stamps, codec=codec, tick=tick, size=(128, 96), reordered=reordered, pixel_format=pixel_format)
    frames, found = read(path, "auto")
    assert [frame.time_s for frame in frames] == [float((stamp - stamps[0]) * tick) for stamp in stamps]
    assert (found.decoded, found.undecodable, found.missing, found.trouble) == (len(stamps), 0, 0, "")


@both
@pytest.mark.parametrize(
    ("turn", "corners"),
    [(0, (RED, GREEN, BLACK, BLUE)), (90, (GREEN, BLUE, RED, BLACK)), (180, (BLUE, BLACK, GREEN, RED)), (270, (BLACK, RED, BLUE, GREEN))],
)
def test_rotation_is_applied(tmp_path: Path, decoder: Decoder, turn: int, corners: tuple[tuple[int, int, int], ...]) -> None:
    """`turn` is counterclockwise, as in the display matrix."""
    frames, found = read(write_clip(tmp_path / "a.mp4", STEADY[:2], rotation=turn), decoder)
    pixels = frames[0].pixels
    assert pixels is not None
    assert pixels.shape[:2] == (found.height, found.width) == ((96, 64) if turn % 180 else (64, 96))
    for place, colour in zip(((3, 3), (3, -3), (-3, 3), (-3, -3)), corners, strict=True):
        np.testing.assert_allclose(pixels[place], colour, atol=8)


def test_odd_sizes(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", STEADY[:3], size=(33, 21), codec="ffv1")
    frames, found = read(path)
    assert (found.width, found.height, len(frames)) == (33, 21, 3)


def test_an_animated_gif_is_read_by_its_own_times(tmp_path: Path) -> None:
    pictures = [Image.fromarray(picture(index)) for index in range(4)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[100, 200, 300, 100])
    frames, found = read(tmp_path / "a.gif", "auto")
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.3, 0.6])
    assert [shown(frame) for frame in frames] == [0, 1, 2, 3]
    assert found.duration_s == pytest.approx(0.7)


def test_gif_frames_without_duration_last_as_long_as_in_browsers(tmp_path: Path) -> None:
    pictures = [Image.fromarray(picture(index)) for index in range(5)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[100, 10, 0, 20, 10])
    frames, found = read(tmp_path / "a.gif", "auto")
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.32])
    assert found.duration_s == pytest.approx(0.42)
    assert [shown(frame) for frame in frames] == list(range(5))


def test_frames_cut_by_an_edit_list_are_neither_missing_nor_presented(tmp_path: Path) -> None:
    """Trimmed as by phones: all frames are in the file, but the edit list starts in the middle."""
    content = bytearray(write_clip(tmp_path / "a.mp4", STEADY, reordered=2).read_bytes())
    entry = content.index(b"elst") + 12
    media_time = struct.unpack(">i", content[entry + 4 : entry + 8])[0]
    content[entry : entry + 8] = struct.pack(">Ii", 600, media_time + 15 * 512)
    (tmp_path / "b.mp4").write_bytes(content)
    frames, found = read(tmp_path / "b.mp4", "auto")
    assert [shown(frame) for frame in frames] == list(range(15, 30))
    assert (frames[0].index, frames[0].time_s, found.missing, found.undecodable) == (0, 0.0, 0, 0)
    assert decoder_of(tmp_path / "b.mp4") == "pyav"


@pytest.mark.parametrize("reordered", [0, 2])
def test_transport_streams(tmp_path: Path, reordered: int) -> None:
    frames, found = read(
        write_clip(tmp_path / "a.ts", [3600 * i for i in range(30)], tick=Fraction(1, 90_000), reordered=reordered), "auto"
    )
    assert [frame.time_s for frame in frames] == [i * 3600 / 90_000 for i in range(30)]
    assert [shown(frame) for frame in frames] == list(range(30))
    assert (found.undecodable, found.missing) == (0, 0)


@pytest.mark.parametrize("earlier_s", [30, 90])
def test_concatenation_with_earlier_timestamps_continues_in_time(earlier_s: int, tmp_path: Path) -> None:
    """FFmpeg takes a step back by more than a minute for the timestamp wrap-around after 26.5 hours."""
    stamps = [3600 * i for i in range(20)]
    late = write_clip(tmp_path / "1.ts", [90_000 * earlier_s + stamp for stamp in stamps], tick=Fraction(1, 90_000), reordered=2)
    early = write_clip(tmp_path / "2.ts", stamps, tick=Fraction(1, 90_000), reordered=2)
    (tmp_path / "both.ts").write_bytes(late.read_bytes() + early.read_bytes())
    frames, found = read(tmp_path / "both.ts", "auto")
    assert [shown(frame) for frame in frames] == 2 * list(range(20))
    assert [frame.time_s for frame in frames] == pytest.approx([0.04 * i for i in range(40)])
    assert found.undecodable == found.missing == 0


def test_concatenated_streams_continue_in_time(tmp_path: Path) -> None:
    """Two concatenated transport streams, the second with another size and timestamps from 0 again."""
    parts = [write_clip(tmp_path / f"{size[0]}.ts", STEADY[:20], size=size, reordered=2) for size in ((96, 64), (64, 48))]
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, found = read(tmp_path / "both.ts", "auto")
    times = [frame.time_s for frame in frames]
    assert len(times) == found.decoded == 40
    assert times == sorted(times)
    assert times[-1] == pytest.approx(39 * 0.04, abs=0.05)
    assert {frame.pixels.shape for frame in frames if frame.is_decoded} == {(64, 96, 3)}


# Which decoder


def test_auto_takes_decord_for_short_clips_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("decord")
    path = write_clip(tmp_path / "a.mp4")
    assert decoder_of(path) == "decord"
    monkeypatch.setattr(opening, "MAX_DECODED_BYTES", len(STEADY) * 96 * 64 * 3 - 1)
    assert decoder_of(path) == "pyav"
    monkeypatch.setattr(opening, "MAX_DECODED_BYTES", path.stat().st_size - 1)
    monkeypatch.setattr(opening, "read_packet_index", lambda _: pytest.fail("a large file was read only to choose a decoder"))
    assert decoder_of(path) == "pyav"


def test_auto_keeps_decord_from_avi(tmp_path: Path) -> None:
    assert decoder_of(write_clip(tmp_path / "a.avi", range(10), tick=Fraction(1, 25), codec="mpeg4")) == "pyav"


def test_auto_does_without_decord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4", STEADY[:3])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert decoder_of(path) == "pyav"
    with pytest.raises(UsageError, match="--decoder pyav"):
        read(path, "decord")


@pytest.mark.skipif(not (CLIP / "no_face.mp4").exists(), reason="the clip with an edit list is not here")
def test_auto_continues_with_pyav_where_decord_counts_other_frames() -> None:
    frames, found = read(CLIP / "no_face.mp4", "auto", sample_fps=1)
    assert decoder_of(CLIP / "no_face.mp4") == "pyav"
    assert (len(frames), found.decoded, found.missing) == (4, 95, 0)


@pytest.mark.skipif(not (CLIP / "face_noface.mov").exists(), reason="the clip from a phone is not here")
def test_a_clip_from_a_phone_is_the_same_by_both() -> None:
    assert len(assert_same(CLIP / "face_noface.mov", sample_fps=2)) == 13


def test_decord_is_not_used_where_fragments_overlap(tmp_path: Path) -> None:
    """Fragments cut within a group of pictures, as by MPEG-DASH packagers. decord loses a frame there and presents the others too early."""
    path = write_clip(tmp_path / "a.mp4", [512 * i for i in range(60)], reordered=2, movflags="dash", frag_duration="400000")
    frames, _ = read(path, "auto")
    assert [shown(frame) for frame in frames] == list(range(60))
    assert decoder_of(path) == "pyav"


def long_gaps(path: Path) -> Path:
    """Seconds pass between some frames, so that seeking in a transport stream finds none before them."""
    return write_clip(path, [512 * i + 12_800 * min(max(i - 20, 0), 6) for i in range(60)], reordered=2)


def strung_together(path: Path) -> Path:
    stamps = [512 * i for i in range(60)]
    parts = [write_clip(path.with_name(name), stamps, reordered=reordered) for name, reordered in (("1.ts", 2), ("2.ts", 0))]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_a_clip_lasts_as_long_as_its_last_frame_is_shown(tmp_path: Path) -> None:
    """With reordering, the last frame in presentation order is not the last packet."""
    assert len(assert_same(long_gaps(tmp_path / "a.mp4"))) == 60


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.mp4", long_gaps),
        ("a.ts", long_gaps),
        ("a.avi", lambda path: write_clip(path, range(60), tick=Fraction(1, 25), reordered=2)),
        ("a.h264", lambda path: write_clip(path, reordered=2)),
        ("together.ts", strung_together),
    ],
)
def test_pictures_are_those_of_their_times(name: str, make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path / name)
    frames = read(path)[0][::7]
    found = list(opening.pictures_at(Medium(path, name, name, "video"), [frame.time_s for frame in frames]))
    assert [time_s for time_s, _ in found] == [frame.time_s for frame in frames]
    for frame, (_, pixels) in zip(frames, found, strict=True):
        np.testing.assert_array_equal(pixels, frame.pixels)


# Some of the frames


@pytest.mark.parametrize("fps", [1, 3, 7.3, 12.5, 25, 1000])
def test_sampling_gives_the_same_frames_from_both(tmp_path: Path, fps: float) -> None:
    frames = assert_same(write_clip(tmp_path / "a.mp4", reordered=2), sample_fps=fps)
    times = [frame.time_s for frame in frames]
    assert times[0] == 0
    assert len({int(time * fps + 1e-5) for time in times}) == len(times)
    assert [shown(frame) for frame in frames] == [frame.index for frame in frames]
    assert len(times) == min(len(STEADY), -(-len(STEADY) * fps // 25))


def test_sampling_survives_gaps_and_borders() -> None:
    sampler = Sampler(10)
    assert [time for time in (0, 0.05, 0.1, 0.15, 0.3, 0.1 + 0.2 + 0.1, 0.41, 5, 5.01) if sampler.accepts(time)] == [
        0,
        0.1,
        0.3,
        0.1 + 0.2 + 0.1,
        5,
    ]


@pytest.mark.parametrize("start", [0, 13, 29, 30])
def test_start_index_leaves_out_what_comes_before(tmp_path: Path, start: int) -> None:
    frames = assert_same(write_clip(tmp_path / "a.mp4"), start_index=start)
    assert [frame.index for frame in frames] == list(range(start, 30))


# Damage


def damaged(tmp_path: Path, spoil: slice) -> tuple[Path, int]:
    """A clip of 60 frames in which the packets `spoil` (in file order) are zeroed."""
    path = write_clip(tmp_path / "a.mp4", [512 * i for i in range(60)], size=(160, 120), reordered=2, noisy=True, movflags="+faststart")
    with av.open(str(path)) as opened:
        places = [(packet.pos, packet.size) for packet in opened.demux(video=0) if packet.size and packet.pos is not None]
    content = bytearray(path.read_bytes())
    for position, size in places[spoil]:
        content[position : position + size] = bytes(size)
    path.write_bytes(content)
    return path, len(places)


@pytest.mark.parametrize("spoil", [slice(20, 27), slice(24, 25), slice(30, 31), slice(56, 60)], ids=str)
@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_frames_after_damage_are_read_and_lost_ones_counted(tmp_path: Path, spoil: slice, decoder: Decoder) -> None:
    path, promised = damaged(tmp_path, spoil)
    frames, found = read(path, decoder)
    lost = [frame for frame in frames if not frame.is_decoded]
    assert found.decoded + found.undecodable + found.missing == len(frames) == promised == 60
    assert spoil.stop - spoil.start <= len(lost) == found.undecodable <= 14
    assert found.trouble
    assert {frame.index for frame in lost} == {-1}
    assert sorted(frame.time_s for frame in frames) == pytest.approx([index / 25 for index in range(60)])
    seen = [frame.time_s for frame in frames if frame.is_decoded]
    assert seen == sorted(seen)
    assert [frame.index for frame in frames if frame.is_decoded] == list(range(found.decoded))
    if spoil.stop < 48:
        assert frames[-1].is_decoded


def test_time_starts_with_the_first_decodable_frame(tmp_path: Path) -> None:
    frames, found = read(damaged(tmp_path, slice(0, 3))[0], "auto")
    lost = [frame.time_s for frame in frames if not frame.is_decoded]
    assert next(frame for frame in frames if frame.is_decoded).time_s == 0
    assert found.decoded + found.undecodable == len(frames) == 60
    assert len(lost) == found.undecodable >= 3
    assert lost == pytest.approx([(index - len(lost)) / 25 for index in range(len(lost))]), "what is lost before lies before 0"


def test_nothing_that_can_be_decoded(tmp_path: Path) -> None:
    assert failure(damaged(tmp_path, slice(0, 60))[0]).kind in ("no_frames", "not_media")


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_mp4_has_missing_frames(tmp_path: Path, kept: float) -> None:
    path, promised = damaged(tmp_path, slice(0, 0))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    frames, found = read(path, "auto")
    assert found.missing > 0
    assert found.decoded + found.undecodable + found.missing == promised
    assert found.undecodable <= 1
    assert len(frames) == found.decoded + found.undecodable


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.avi", "mpeg4")])
def test_truncated_videos_in_other_containers_have_missing_frames(tmp_path: Path, name: str, codec: str) -> None:
    path = write_clip(tmp_path / name, range(100), tick=Fraction(1, 25), codec=codec, noisy=True)
    assert read(path)[1].missing == 0
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, found = read(path, "auto")
    assert 5 < len(frames) < 60
    assert len(frames) + found.missing == pytest.approx(100, abs=6)
    assert failure(path, "decord").kind in ("truncated", "decord")


class _OnADrive(PosixPath):
    """A file whose drive is removed after `left` bytes."""

    left = 0

    def open(self, *_: object, **__: object) -> Any:
        path = self

        class Reader(io.FileIO):
            def readinto(self, buffer: Any) -> int:
                return self._counted(super().readinto(buffer) or 0)

            def read(self, size: int | None = -1) -> bytes:
                content = super().read(-1 if size is None else size) or b""
                self._counted(len(content))
                return content

            def _counted(self, count: int) -> int:
                path.left -= count
                if path.left < 0:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return count

        return Reader(str(self))


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.9])
def test_a_drive_that_is_removed_while_a_video_is_read(tmp_path: Path, kept: float) -> None:
    path = _OnADrive(
        write_clip(tmp_path / "a.mp4", size=(320, 240), noisy=True, codec="mjpeg", pixel_format="yuvj420p", movflags="+faststart")
    )
    path.left = int(kept * path.stat().st_size)
    if not kept:
        assert failure(path, "pyav").kind == "unreadable"
        return
    frames, found = read(path)
    assert 0 < len(frames) < 30
    assert found.decoded + found.undecodable + found.missing == 30
    assert "Input/output error" in found.trouble


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [("empty.mp4", b"", "empty"), ("text.mp4", b"no video at all\n" * 99, "not_media"), ("folder.mp4", None, "unreadable")],
)
def test_what_is_no_video_is_refused(tmp_path: Path, name: str, content: bytes | None, kind: str) -> None:
    path = tmp_path / name
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    assert failure(path).kind == failure(path, "pyav").kind == failure(path, "decord").kind == kind
    assert failure(tmp_path / "nowhere.mp4").kind == "unreadable"


def test_an_mp4_without_its_index_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", noisy=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert failure(path).kind == "not_media"


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    path = made_media.write_clip(tmp_path / "song.mp4", [], sound=made_media.silence(0.2)).path
    assert failure(path).kind == "no_video"


def test_a_video_without_frames_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", STEADY[:1])
    with av.open(str(path)) as opened:
        first = next(packet.pos for packet in opened.demux(video=0) if packet.pos is not None)
    path.write_bytes(path.read_bytes()[: first - 8])
    assert failure(path).kind in ("no_frames", "not_media")
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        output.start_encoding()
    assert failure(tmp_path / "a.mp4").kind in ("no_video", "no_frames")


def test_tags_in_other_encodings_are_harmless(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as output:
        output.metadata["title"] = "Gruesse-XX"
        stream = output.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        output.mux(stream.encode(av.VideoFrame.from_ndarray(picture(0), "rgb24")))
        output.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"Gruesse-XX", "Grüße an J".encode("latin-1")))
    assert len(read(path, "auto")[0]) == 1


@pytest.mark.parametrize(
    "text",
    ["ffconcat version 1.0\nfile real.mp4\n", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nreal.mp4\n#EXT-X-ENDLIST\n"],
    ids=["ffconcat", "m3u8"],
)
def test_a_play_list_opens_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    real = write_clip(tmp_path / "real.mp4", STEADY[:2])
    path = tmp_path / "list.mp4"
    path.write_text(text)
    monkeypatch.chdir(tmp_path)
    os.utime(real, ns=(0, 0))
    for decoder in ("auto", "pyav", "decord"):
        assert failure(path, decoder).kind == "not_media"
    assert real.stat().st_atime_ns == 0
    real.read_bytes()
    if real.stat().st_atime_ns == 0:
        pytest.skip("this file system does not store when a file was read")


@both
def test_huge_frames_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: Decoder) -> None:
    path = write_clip(tmp_path / "a.mp4", STEADY[:2])
    monkeypatch.setattr(container, "MAX_PIXELS", 96 * 64 - 1)
    assert failure(path, decoder).kind == "too_large"


def test_the_packet_index_rounds_once(tmp_path: Path) -> None:
    index = read_packet_index(write_clip(tmp_path / "a.mp4", UNSTEADY))
    assert index.times_s.tolist() == [stamp / 12_800 for stamp in UNSTEADY]
    assert index.size == (96, 64)
    assert "10 frames, 96x64" in repr(index)


def test_frames_are_freed_at_once(tmp_path: Path) -> None:
    """Frames are freed by reference counting, not by the cycle collector: until then memory would grow."""
    path = write_clip(tmp_path / "a.mp4", [512 * i for i in range(60)], rotation=90)
    gc.collect()
    gc.disable()
    try:
        for frame in open_source(Medium(path, "a.mp4", "a.mp4", "video"), decoder="pyav").frames():
            assert frame.grey.size
        assert sum(issubclass(type(each), av.VideoFrame) for each in gc.get_objects()) <= 60 // 12 + 3
    finally:
        gc.enable()


def test_pyav_reads_nothing_ahead(tmp_path: Path) -> None:
    """Memory does not grow with the video: after the first frame, most of a file larger than all buffers is unread."""
    path = write_clip(
        tmp_path / "a.mp4", STEADY, size=(320, 240), noisy=True, codec="mjpeg", pixel_format="yuvj420p", movflags="+faststart"
    )
    frames = open_source(Medium(path, "a.mp4", "a.mp4", "video"), decoder="pyav").frames()
    before = _bytes_read()
    next(frames)
    assert _bytes_read() - before < path.stat().st_size / 2


def _bytes_read() -> int:
    counts = Path("/proc/self/io")
    if not counts.exists():
        pytest.skip("the system does not count what a process reads")
    return int(counts.read_text().split()[1])


@pytest.mark.parametrize("kind", ["yuv420p", "yuvj420p", "yuv422p10le"])
def test_grey_agrees_with_rgb(tmp_path: Path, kind: str) -> None:
    scene = cv2.GaussianBlur(np.random.default_rng(3).integers(0, 256, (64, 96, 1), np.uint8), (0, 0), 2)
    scene = cv2.normalize(scene, np.empty_like(scene), 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    codec = "mjpeg" if kind == "yuvj420p" else "libx264"
    options, context = ({"q:v": "1"}, {"color_range": 2}) if codec == "mjpeg" else ({"crf": "1"}, {})
    pictures = [np.repeat(scene[:, :, None], 3, axis=2)]
    made_media.write_clip(tmp_path / "a.mov", pictures, codec=codec, pixel_format=kind, options=options, **context)  # type: ignore[arg-type]
    (frame,) = read(tmp_path / "a.mov")[0]
    expected = cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2GRAY)
    assert np.abs(frame.grey.astype(int) - expected).mean() < 1.5
    assert np.abs(frame.grey.astype(int) - scene).mean() < 3


@pytest.mark.parametrize(("codec", "kind"), [("libx264", "yuv420p10le"), ("libx264", "yuv444p10le"), ("ffv1", "gbrp10le")])
def test_high_bit_depth_frames_need_no_more_memory(tmp_path: Path, codec: str, kind: str) -> None:
    flat, deep = (write_clip(tmp_path / f"{each}.mkv", codec=codec, pixel_format=each, size=(96, 64)) for each in ("yuv420p", kind))
    frames, expected = read(deep)[0], read(flat)[0]
    assert len(frames) == len(expected)
    for frame, other in zip(frames, expected, strict=True):
        assert shown(frame) == shown(other)
        assert np.abs(frame.pixels.astype(int) - other.pixels).mean() < 3
        picture: Any = frame.picture
        assert {component.bits for component in picture._frame.format.components} == {8}


def test_of_two_frames_with_one_timestamp_one_is_undecodable(tmp_path: Path) -> None:
    """Some muxers, and damage, cause this: a player would show only one of them."""
    path = write_clip(tmp_path / "a.mp4", STEADY[:10], codec="mpeg4", tick=TICK)
    content = bytearray(path.read_bytes())
    place = content.index(b"stts") + 8  # one entry of ten frames, 512 ticks each, becomes three
    assert struct.unpack(">III", content[place : place + 12]) == (1, 10, 512)
    extra = struct.pack(">IIIIIII", 3, 4, 512, 1, 0, 5, 512)
    content[place : place + 12] = extra
    grown = len(extra) - 12
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"):
        at = content.index(name) - 4
        content[at : at + 4] = struct.pack(">I", struct.unpack(">I", content[at : at + 4])[0] + grown)
    path.write_bytes(content)
    frames, found = read(path, "auto")
    times = [frame.time_s for frame in frames if frame.is_decoded]
    assert times == sorted(set(times))
    assert (found.decoded, found.undecodable, len(frames)) == (9, 1, 10)
    assert "two frames with the same timestamp" in str(failure(path, "decord"))


def test_impossible_seeks_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A box size that makes FFmpeg seek to a negative offset."""
    content = bytearray(write_clip(tmp_path / "a.asf", [40 * i for i in range(20)], codec="wmv2", tick=Fraction(1, 1000)).read_bytes())
    for place in range(30, 400):
        spoilt = bytearray(content)
        spoilt[place] ^= 0x80
        (tmp_path / "b.asf").write_bytes(spoilt)
        with contextlib.suppress(MediaError):
            read(tmp_path / "b.asf")
    assert "Traceback" not in capfd.readouterr().err
