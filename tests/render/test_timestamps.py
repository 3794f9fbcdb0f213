"""Timestamps as a player has them, and the audio track that counts for them: compared with FFmpeg's own commands."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from batchemo.media.presentation import choose_track
from batchemo.render.timestamps import _first_frame_time, read_output_clock
from batchemo.render.video_writer import VideoWriter
from batchemo.yuv import Planes

WIDTH, HEIGHT, RATE = 64, 48, 48_000
NEAR_S = 0.0011
"""Matroska's time base is 1 ms, and ffprobe is no more precise."""

pytestmark = pytest.mark.needs("ffmpeg")


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True, timeout=60)


def pictures(late_s: float = 0) -> list[str]:
    return ["-itsoffset", str(late_s), "-f", "lavfi", "-i", f"testsrc=size={WIDTH}x{HEIGHT}:rate=25:duration=1"]


def tone(hertz: int, late_s: float = 0) -> list[str]:
    return ["-itsoffset", str(late_s), "-f", "lavfi", "-i", f"sine={hertz}:sample_rate={RATE}:duration=2"]


def make_video(path: Path, video: str, audio: str, *, pictures_s: float, sound_s: float) -> Path:
    codecs = ["-c:v", video, "-vsync", "passthrough", "-c:a", audio]
    ffmpeg(*pictures(pictures_s), *tone(440, sound_s), "-map", "0:v", "-map", "1:a", *codecs, path)
    return path


def starts(path: Path) -> dict[str, list[float]]:
    """Start times of the tracks of each kind, by ffprobe."""
    command = ["ffprobe", "-v", "error", "-show_entries", "stream=codec_type,start_time", "-of", "json", str(path)]
    found: dict[str, list[float]] = {"video": [], "audio": []}
    for stream in json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)["streams"]:
        found[stream["codec_type"]].append(float(stream["start_time"]))
    return found


def shown_at(path: Path, *, sound: int = 0) -> float:
    """When a player shows the first frame, counted from where this or the audio begins."""
    found = starts(path)
    return max(0.0, found["video"][0] - found["audio"][sound])


def copy_of(source: Path, path: Path) -> Path:
    with VideoWriter(path, source=source, width=WIDTH, height=HEIGHT) as writer:
        for number in range(25):
            writer.write(Planes.from_rgb(np.full((HEIGHT, WIDTH, 3), 4 * number, np.uint8)), number / 25)
    return path


@pytest.mark.parametrize(
    ("name", "video", "audio", "pictures_s", "sound_s"),
    [
        ("together.mp4", "libx264", "aac", 0, 0),
        ("empty_edit.mp4", "libx264", "aac", 2, 0),
        ("late_sound.mp4", "mpeg4", "libmp3lame", 0, 2),
        ("empty_edit.mov", "libx264", "pcm_s16le", 2, 0),
        ("late.mkv", "libx264", "aac", 2, 0),
        ("late_sound.mkv", "libx264", "aac", 0, 2),
        ("late.webm", "libvpx", "libvorbis", 2, 0),
        ("together.ts", "libx264", "aac", 0, 0),
        ("late.ts", "libx264", "aac", 2, 0),
        ("late_sound.ts", "mpeg2video", "mp2", 0, 2),
        ("late.flv", "flv", "libmp3lame", 2, 0),
    ],
)
def test_timestamps_are_those_of_a_player(tmp_path: Path, name: str, video: str, audio: str, pictures_s: float, sound_s: float) -> None:
    source = make_video(tmp_path / name, video, audio, pictures_s=pictures_s, sound_s=sound_s)
    expected = shown_at(source)
    assert expected == pytest.approx(pictures_s, abs=0.05), "the command has made what it was asked for, but for the delay of its codec"
    clock = read_output_clock(source)
    assert clock.starts_s == pytest.approx(expected, abs=NEAR_S)
    copy = copy_of(source, tmp_path / "copy.mp4")
    begins, (pictures_of_copy,), (sound_of_copy,) = starts(source), *starts(copy).values()
    assert pictures_of_copy == pytest.approx(clock.starts_s, abs=NEAR_S)
    assert min(pictures_of_copy, sound_of_copy) == pytest.approx(0, abs=NEAR_S)
    assert sound_of_copy - pictures_of_copy == pytest.approx(begins["audio"][0] - begins["video"][0], abs=0.03), "less than a packet"


def test_without_audio_the_first_frame_is_at_0(tmp_path: Path) -> None:
    ffmpeg(*pictures(3), "-c:v", "libx264", tmp_path / "mute.ts")
    assert read_output_clock(tmp_path / "mute.ts").starts_s == 0
    ffmpeg(*pictures(), "-c:v", "gif", tmp_path / "moving.gif")
    assert read_output_clock(tmp_path / "moving.gif").starts_s == 0


def test_video_starts_with_the_first_decodable_frame(tmp_path: Path) -> None:
    """A recording cut before a key frame: players count from its first packet, whether it can be shown or not."""
    whole, cut = tmp_path / "whole.ts", tmp_path / "cut.ts"
    ffmpeg(*pictures(), "-c:v", "libx264", "-bf", "0", "-g", "10", "-x264-params", "scenecut=0", whole)
    with av.open(str(whole)) as container:
        third = [packet for packet in container.demux(video=0) if packet.size][2]
    assert third.pos is not None
    cut.write_bytes(whole.read_bytes()[third.pos // 188 * 188 :])
    with av.open(str(cut)) as container:
        shown = next(frame.time for frame in container.decode(video=0))
    assert shown is not None
    begins = starts(cut)["video"][0]
    assert shown > begins + 0.1
    assert read_output_clock(cut).starts_s == pytest.approx(shown - begins, abs=NEAR_S)


def test_frames_without_timestamps_are_not_all_decoded(tmp_path: Path) -> None:
    ffmpeg(*pictures(), "-c:v", "libx264", tmp_path / "bare.h264")
    assert read_output_clock(tmp_path / "bare.h264").starts_s == 0
    with av.open(str(tmp_path / "bare.h264")) as container:
        packets = iter(container.demux(video=0))
        assert _first_frame_time(SimpleNamespace(demux=lambda _: packets), container.streams.video[0]) == 0  # type: ignore[arg-type]
        assert len(list(packets)) > 10


@pytest.mark.parametrize(
    ("name", "flagged", "chosen"), [("a.mkv", 1, 1), ("b.mkv", 0, 0), ("c.mkv", None, 0), ("a.mp4", 1, 1), ("b.mp4", None, 0)]
)
def test_the_audio_is_the_default_track(tmp_path: Path, name: str, flagged: int | None, chosen: int) -> None:
    source = tmp_path / name
    tracks = [*pictures(0.5), *tone(440, 0.2), *tone(880)]
    flags = [word for number in (0, 1) for word in (f"-disposition:a:{number}", "default" if number == flagged else "0")]
    codecs = ["-c:v", "libx264", "-vsync", "passthrough", "-c:a", "aac"]
    ffmpeg(*tracks, "-map", "0:v", "-map", "1:a", "-map", "2:a", *codecs, *flags, source)
    assert loudest(copy_of(source, tmp_path / "copy.mp4")) == pytest.approx((440, 880)[chosen], abs=5)
    assert read_output_clock(source).starts_s == pytest.approx(shown_at(source, sound=chosen), abs=NEAR_S)


def test_audio_that_cannot_be_decoded_is_skipped(tmp_path: Path) -> None:
    source = tmp_path / "two.mkv"
    tracks = [*pictures(), *tone(880), *tone(440)]
    flags = ["-disposition:a:0", "default", "-disposition:a:1", "0"]
    ffmpeg(*tracks, "-map", "0:v", "-map", "1:a", "-map", "2:a", "-c:v", "libx264", "-c:a", "aac", *flags, source)
    content = source.read_bytes()
    assert content.count(b"A_AAC") == 2
    source.write_bytes(content.replace(b"A_AAC", b"A_XYZ", 1))
    with av.open(str(source)) as container:
        assert choose_track(container.streams.audio) is container.streams.audio[1]
    assert loudest(copy_of(source, tmp_path / "copy.mp4")) == pytest.approx(440, abs=5)


def loudest(path: Path) -> float:
    """The pitch in Hz of a video's only audio track, decoded by the ffmpeg command."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:a", "-ac", "1", "-ar", str(RATE), "-f", "s16le", "-"]
    wave = np.frombuffer(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout, np.int16)[RATE // 2 :][:RATE]
    return float(np.abs(np.fft.rfft(wave)).argmax() * RATE / len(wave))
