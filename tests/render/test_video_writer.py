"""Drawing on frames, and annotated pictures and videos that keep the source's times and audio."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from batchemo.errors import MediaError
from batchemo.palette import colours
from batchemo.records import EMOTIONS, OverlayData
from batchemo.render.encoders import Encoder
from batchemo.render.jpeg import write_jpeg
from batchemo.render.overlay import draw_overlay
from batchemo.render.timeline_strip import TimelineStrip, read_track_timelines
from batchemo.render.video_writer import VideoWriter
from batchemo.yuv import Colours, Planes
from tests.made_media import SAMPLES, read_pixels, shades, silence, write_clip

RATE = 48_000
WIDTH, HEIGHT = 64, 48
TICK = Fraction(1, 12_800)
STEADY = [index * 512 for index in range(50)]  # 25 frames a second, two seconds
UNSTEADY = [0, 175, 512, 1200, 1210, 2900, 6400, 6913, 7000, 12_801]
BEEP_S = 1.0


# Drawing


def marks(boxes: Sequence[tuple[float, ...]], *, labels: int = 7, first_track: int = 0) -> OverlayData:
    count = len(boxes)
    probabilities = np.full((count, labels), 0.3 / max(1, labels - 1), np.float32)
    probabilities[:, 0] = 0.7
    ids = np.arange(first_track, first_track + count, dtype=np.int32)
    nowhere = np.empty((0, 4), np.float32)
    return OverlayData(np.array(boxes, np.float32).reshape(-1, 4), ids, probabilities, np.zeros(count, np.bool_), nowhere)


def grey(width: int, height: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 120, np.uint8)


def touched(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray((before != after).any(axis=2))


def test_drawing_shows_the_box_and_leaves_the_input() -> None:
    pixels = grey(640, 360)
    original = pixels.copy()
    drawn = draw_overlay(pixels, marks([(200, 100, 300, 220)], first_track=3), labels=EMOTIONS)
    assert np.array_equal(pixels, original)
    assert tuple(drawn[160, 202]) == tuple(drawn[160, 297]) == tuple(drawn[217, 250]) == colours(EMOTIONS)[0]
    assert not touched(original, drawn)[106:214, 206:294].any(), "the face itself stays as it was"


def test_draw_without_faces_is_a_copy() -> None:
    pixels = grey(64, 48)
    drawn = draw_overlay(pixels, marks([]), labels=EMOTIONS)
    assert np.array_equal(drawn, pixels)
    assert not np.shares_memory(drawn, pixels)


def test_draw_refuses_labels_that_do_not_fit() -> None:
    pixels = grey(640, 360)
    with pytest.raises(ValueError, match="3 labels for 7 probabilities"):
        draw_overlay(pixels, marks([(200, 100, 300, 220)]), labels=("a", "b", "c"))


@pytest.mark.parametrize(
    "box",
    [(0, 0, 80, 90), (560, 0, 640, 90), (0, 270, 80, 360), (560, 270, 640, 360), (-30, -20, 60, 70), (600, 300, 700, 400)],
)
def test_name_and_chart_are_whole_in_every_corner(box: tuple[float, ...]) -> None:
    pixels = grey(640, 360)
    amid = draw_overlay(pixels, marks([(280, 130, 360, 220)]), labels=EMOTIONS)
    changed = touched(pixels, amid)
    label_top, label_right = changed[:, 282].argmax(), 280 + (~changed[128, 280:]).argmax()
    chart_left, chart_right = 360 + changed[140, 360:].argmax(), 640 - changed[140, ::-1].argmax()
    chart_bottom = 360 - changed[::-1, chart_left].argmax()
    label, chart = amid[label_top:130, 280:label_right], amid[130:chart_bottom, chart_left:chart_right]
    assert label.shape[1] > 60
    assert chart.shape[0] > 60
    cornered = draw_overlay(pixels, marks([box]), labels=EMOTIONS)
    for part in (label, chart):
        assert cv2.matchTemplate(cornered, part, cv2.TM_SQDIFF).min() < 100, "found pixel by pixel, so nothing is cut off or hidden"


def test_charts_never_cover_other_faces() -> None:
    pixels = grey(1280, 720)
    boxes = [
        (100.0 + 240 * (index % 5), 60.0 + 330 * (index // 5), 220.0 + 240 * (index % 5), 200.0 + 330 * (index // 5)) for index in range(10)
    ]
    changed = touched(pixels, draw_overlay(pixels, marks(boxes), labels=EMOTIONS))
    for left, top, right, bottom in boxes:
        assert not changed[int(top) + 8 : int(bottom) - 8, int(left) + 8 : int(right) - 8].any()


def test_crowd_keeps_boxes_where_charts_have_no_room() -> None:
    pixels = grey(320, 180)
    boxes = [
        (4.0 + 26 * (index % 12), 4.0 + 29 * (index // 12), 24.0 + 26 * (index % 12), 26.0 + 29 * (index // 12)) for index in range(72)
    ]
    crowd = marks(boxes)
    crowd.probabilities[40:, [0, 3]] = crowd.probabilities[40:, [3, 0]]
    drawn = draw_overlay(pixels, crowd, labels=EMOTIONS)
    found = {tuple(colour) for colour in drawn.reshape(-1, 3).tolist()}
    assert {colours(EMOTIONS)[0], colours(EMOTIONS)[3]} <= found


def test_close_up_that_fills_the_picture_still_gets_a_chart() -> None:
    pixels = grey(640, 360)
    drawn = draw_overlay(pixels, marks([(2, 2, 638, 358)]), labels=EMOTIONS)
    white = (drawn == 255).all(axis=2)
    assert white.any(), "the leading label is written in white"


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (3, 200), (48, 48), (200, 40)])
def test_tiny_pictures(size: tuple[int, int]) -> None:
    width, height = size
    pixels = grey(width, height)
    drawn = draw_overlay(pixels, marks([(0.2 * width, 0.2 * height, width, height), (-9, -9, -2, -2)]), labels=EMOTIONS)
    assert drawn.shape == pixels.shape
    assert touched(pixels, drawn).any()


@pytest.mark.parametrize("label", ["", "joie é", "喜び", "a\nb\x00\x1b[31m", "\ud800", "e\u0301" * 40, "w" * 500, "\u202eabc", "🙂"])
def test_any_label_can_be_drawn(label: str) -> None:
    pixels = grey(640, 360)
    drawn = draw_overlay(pixels, marks([(200, 100, 300, 220)], labels=2), labels=(label, "other"))
    assert touched(pixels, drawn).any()


def test_text_grows_with_the_picture() -> None:
    heights = []
    for factor in (1, 6):
        pixels = grey(640 * factor, 360 * factor)
        drawn = draw_overlay(pixels, marks([(200 * factor, 100 * factor, 300 * factor, 220 * factor)]), labels=EMOTIONS)
        label = (drawn[: 98 * factor] == colours(EMOTIONS)[0]).all(axis=2).any(axis=1)
        heights.append(int(label.sum()))
    assert 11 <= heights[0] <= 20
    assert heights[1] == pytest.approx(6 * heights[0], rel=0.1)


def test_uncertain_faces_are_drawn_differently() -> None:
    pixels = grey(640, 360)
    certain = marks([(200, 100, 300, 220)])
    doubtful = dataclasses.replace(certain, uncertain=np.array([True]))
    drawn, sure = draw_overlay(pixels, doubtful, labels=EMOTIONS), draw_overlay(pixels, certain, labels=EMOTIONS)
    colour = colours(EMOTIONS)[0]
    top_edge, sure_edge = ((picture[102, 205:295] == colour).all(axis=1) for picture in (drawn, sure))
    assert sure_edge.all()
    assert 0.3 < top_edge.mean() < 0.8
    assert np.count_nonzero(np.diff(top_edge.astype(int))) == 8, "five dashes"
    assert not (drawn[86:96, 200:280] == colour).all(axis=2).any(), "no ground of the colour"
    assert (sure[86:96, 200:280] == colour).all(axis=2).any()


def face() -> NDArray[np.uint8]:
    picture = read_pixels(SAMPLES / "eileen_collins.jpg")
    return cv2.cvtColor(cv2.resize(picture, (200, 200)), cv2.COLOR_BGR2RGB).astype(np.uint8)


@pytest.mark.parametrize("box", [(60, 60, 140, 150), (-40, -30, 90, 120), (150, 120, 260, 260), (0, 0, 200, 200)])
def test_blurred_faces_keep_no_detail(box: tuple[float, ...]) -> None:
    """Measured by the contrast of neighbouring pixels, which outlines cause."""
    pixels = face()
    drawn = draw_overlay(pixels, dataclasses.replace(marks([]), hidden=np.array([box], np.float32)), labels=EMOTIONS)
    left, top, right, bottom = np.clip(box, 0, 200).astype(int)
    before, after = (picture[top:bottom, left:right].astype(np.float64) for picture in (pixels, drawn))
    contrast = [np.abs(np.diff(inside, axis=0)).mean() + np.abs(np.diff(inside, axis=1)).mean() for inside in (before, after)]
    assert contrast[1] < 0.35 * contrast[0]
    sharpened = cv2.Laplacian(after, cv2.CV_64F)
    assert np.abs(sharpened).mean() < 0.1 * np.abs(cv2.Laplacian(before, cv2.CV_64F)).mean()


def test_blurred_areas_are_larger_than_boxes() -> None:
    pixels = face()
    drawn = draw_overlay(pixels, dataclasses.replace(marks([]), hidden=np.array([(80, 80, 120, 120)], np.float32)), labels=EMOTIONS)
    rows, columns = np.nonzero(touched(pixels, drawn))
    assert (rows.min(), columns.min(), rows.max(), columns.max()) == pytest.approx((66, 66, 133, 133), abs=2)


# The strip


def faces_table(path: Path, tracks: dict[int, int]) -> Path:
    """A face each tenth of a second; each track leads with the emotion of its number, uncertain from half of the time on."""
    rows = []
    for track, frames in tracks.items():
        for frame in range(frames):
            shares = np.full(7, 0.02 if frame < 50 else 0.1)
            shares[track] = 1 - 6 * shares[0]
            rows.append({"time_s": frame / 10, "track_id": track, **{f"p_{label}": s for label, s in zip(EMOTIONS, shares, strict=True)}})
    pd.DataFrame(rows).astype({"track_id": "int32"}).sort_values("time_s").to_parquet(path, row_group_size=64)
    return path


def test_strip_shows_emotions_over_time(tmp_path: Path) -> None:
    path = faces_table(tmp_path / "faces.parquet", {1: 100, 3: 60, 4: 5, 0: 30, 2: 40, 5: 20})
    courses = read_track_timelines(path, EMOTIONS, bins=40, end_s=10.0)
    assert [course.track_id for course in courses] == [0, 1, 2, 3, 5], "the five that are seen longest"
    strip = TimelineStrip(courses, EMOTIONS, width=640, height=360, end_s=10.0, uncertain_below=0.5)
    pictures = [strip.render_at(time_s) for time_s in (0.0, 5.0, 10.0)]
    assert all(picture.shape == (strip.height, 640, 3) and strip.height < 150 for picture in pictures)
    middle = pictures[0]
    rows = [int(np.flatnonzero((middle == colours(EMOTIONS)[track]).all(axis=2).sum(axis=1) > 40)[2]) for track in (0, 1, 2, 3)]
    assert rows == sorted(rows), "one below the other"
    lengths = [int((middle[row] == colours(EMOTIONS)[track]).all(axis=1).sum()) for row, track in zip(rows, (0, 1, 2, 3), strict=True)]
    assert np.array(lengths) / lengths[1] == pytest.approx([0.6, 1.0, 0.8, 1.0], abs=0.06), "certain until half of the time"
    cursors = [int(np.flatnonzero((picture[rows[0]] == 255).all(axis=1)).mean()) for picture in pictures]
    assert cursors[0] < cursors[1] < cursors[2]
    assert cursors[1] == pytest.approx((cursors[0] + cursors[2]) / 2, abs=2)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (48, 48), (641, 361)])
def test_strip_for_any_picture(size: tuple[int, int]) -> None:
    width, height = size
    drawn = TimelineStrip([], EMOTIONS, width=width, height=height, end_s=0.0, uncertain_below=0.5).render_at(0.0)
    assert drawn.shape[1] == width + width % 2
    assert drawn.shape[0] > 0
    assert drawn.shape[0] % 2 == 0


# Pictures


def test_write_jpeg(tmp_path: Path) -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:] = (200, 60, 20)
    path = tmp_path / "new" / ("é" * 125 + ".jpg")
    write_jpeg(path, pixels)
    read = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    assert read is not None
    assert np.abs(read[20, 30, ::-1].astype(int) - (200, 60, 20)).max() <= 4
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_picture_too_large_for_jpeg(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="JPEG cannot hold 70000 x 1 pixels"):
        write_jpeg(tmp_path / "long.jpg", np.zeros((1, 70_000, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


# Videos


def make_source(
    path: Path, *, ticks: list[int] = STEADY, sound: str | None = None, sound_start_s: float = 0.0, video_start_s: float = 0.0
) -> Path:
    """A clip whose sound, if any, is silence but for a beep from `BEEP_S` on, on the clock of the container."""
    codec, tick = ("gif", Fraction(1, 100)) if path.suffix == ".gif" else ("ffv1" if path.suffix == ".mkv" else "mpeg4", TICK)
    stamps = [stamp + round(video_start_s / tick) for stamp in ticks]
    beep = [sound_frame(start) for start in range(round(sound_start_s * RATE), 2 * RATE, 960)] if sound else []
    kind = {"codec": codec, "pixel_format": "rgb8" if codec == "gif" else "yuv420p", "sound_codec": sound}
    pictures = shades(len(ticks), (WIDTH, HEIGHT), step=4)
    return write_clip(path, pictures, stamps=stamps, tick=tick, sound=beep, **kind).path  # type: ignore[arg-type]


def sound_frame(start: int) -> av.AudioFrame:
    seconds = np.arange(start, start + 960) / RATE
    wave = np.where(seconds >= BEEP_S, 0.5 * np.sin(2 * np.pi * 1000 * seconds), 0)
    frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]).astype(np.float32), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
    return frame


def frame_times(path: Path) -> list[Fraction]:
    with av.open(str(path), "r") as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0) if frame.pts is not None and frame.time_base is not None]


def beep_after_first_frame(path: Path) -> float:
    with av.open(str(path), "r") as container:
        for frame in container.decode(audio=0):
            loud = np.abs(av.AudioResampler(format="fltp", layout="mono").resample(frame)[0].to_ndarray()[0]) > 0.1
            if loud.any():
                assert frame.time is not None
                return float(frame.time + loud.argmax() / frame.sample_rate - frame_times(path)[0])
    raise AssertionError(f"{path} has no beep")


def copy_through(source: Path, path: Path, *, times_s: list[float] | None = None) -> Path:
    if times_s is None:
        stamps = frame_times(source)
        times_s = [float(stamp - stamps[0]) for stamp in stamps]
    with VideoWriter(path, source=source, width=WIDTH, height=HEIGHT) as writer:
        for number, time_s in enumerate(times_s):
            writer.write(Planes.from_rgb(np.full((HEIGHT, WIDTH, 3), 4 * number % 256, np.uint8)), time_s)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".gif"])
def test_times_are_those_of_the_source(tmp_path: Path, suffix: str) -> None:
    ticks = {".avi": STEADY, ".gif": [0, 7, 8, 30, 95]}.get(suffix, UNSTEADY)
    source = make_source(tmp_path / f"source{suffix}", ticks=ticks)
    result = copy_through(source, tmp_path / "result.mp4")
    expected = frame_times(source)
    assert len(expected) == len(ticks)
    assert frame_times(result) == [stamp - expected[0] for stamp in expected]


def test_sampled_frames_keep_their_times_and_the_end(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source.mp4")
    result = copy_through(source, tmp_path / "result.mp4", times_s=[0.0, 0.48, 1.0, 1.48])
    assert [float(stamp) for stamp in frame_times(result)] == [0.0, 0.48, 1.0, 1.48]
    with av.open(str(result), "r") as container:
        video = container.streams.video[0]
        assert video.duration is not None
        assert video.time_base is not None
        assert float(video.duration * video.time_base) == pytest.approx(2.0, abs=0.001)


def test_b_frames_keep_order_and_times(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source.mp4", ticks=UNSTEADY, sound="aac")
    stamps = frame_times(source)
    slow = Encoder("libx264", {"preset": "medium"})
    with VideoWriter(tmp_path / "result.mp4", source=source, width=WIDTH, height=HEIGHT, encoder=slow) as writer:
        for stamp in stamps:
            writer.write(Planes.from_rgb(np.full((HEIGHT, WIDTH, 3), 100, np.uint8)), float(stamp - stamps[0]))
    assert frame_times(tmp_path / "result.mp4") == stamps


@pytest.mark.parametrize(
    ("suffix", "sound", "carried"),
    [
        (".mp4", "aac", "aac"),
        (".mp4", "libmp3lame", "mp3"),
        (".mkv", "libopus", "opus"),
        (".ts", "aac", "aac"),
        (".mov", "pcm_s16le", "aac"),
        (".mkv", "flac", "aac"),
        (".avi", "libmp3lame", "mp3"),
    ],
)
@pytest.mark.parametrize("starts_s", [(0.0, 0.0), (0.5, 0.0), (0.0, 0.25), (0.5, 0.25)])
def test_audio_stays_in_sync(tmp_path: Path, suffix: str, sound: str, carried: str, starts_s: tuple[float, float]) -> None:
    source = make_source(tmp_path / f"source{suffix}", sound=sound, sound_start_s=starts_s[0], video_start_s=starts_s[1])
    result = copy_through(source, tmp_path / "result.mp4")
    tolerance_s = 0.0001 if carried in sound else 0.002  # copied packets are exact; an encoder blurs the onset
    assert beep_after_first_frame(result) == pytest.approx(beep_after_first_frame(source), abs=tolerance_s)
    with av.open(str(source), "r") as before, av.open(str(result), "r") as after:
        stream = after.streams.audio[0]
        assert stream.codec_context.codec.canonical_name == carried
        lengths = [sum(frame.samples for frame in container.decode(audio=0)) / RATE for container in (before, after)]
    assert lengths[1] == pytest.approx(lengths[0], abs=0.05)


def test_broken_audio_does_not_fail_the_video(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = make_source(tmp_path / "source.mkv", sound="flac")
    content = bytearray(source.read_bytes())
    with av.open(str(source), "r") as container:
        places = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.pos is not None and packet.size > 20]
    for place, size in places[5:]:
        content[place + 8 : place + size] = bytes(size - 8)
    source.write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="batchemo"):
        result = copy_through(source, tmp_path / "result.mp4")
    assert len(frame_times(result)) == len(STEADY)
    assert "source.mkv: its audio is broken (Invalid data found" in caplog.text


def test_sound_that_mp4_refuses_becomes_aac(tmp_path: Path) -> None:
    pictures, sound = shades(10, (WIDTH, HEIGHT), step=0), silence(0.144, rate=8000, layout="stereo")
    source = write_clip(tmp_path / "slow.mkv", pictures, codec="mpeg4", sound=sound, sound_codec="libmp3lame").path
    result = copy_through(source, tmp_path / "result.mp4")
    with av.open(str(result), "r") as container:
        context = container.streams.audio[0].codec_context
        assert (context.name, context.sample_rate) == ("aac", 8000)


def test_unreadable_sources_give_default_timestamps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "source.mp4"
    source.write_bytes(b"no video")
    with caplog.at_level(logging.WARNING, logger="batchemo"):
        result = copy_through(source, tmp_path / "result.mp4", times_s=[0.0, 0.04, 0.1])
    assert [float(stamp) for stamp in frame_times(result)] == [0.0, 0.04, 0.1]
    assert "source.mp4: its timestamps cannot be read" in caplog.text


def test_any_browser_plays_it(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source.mp4", sound="aac")
    result = copy_through(source, tmp_path / "deep" / "er" / "result.mp4")
    content = result.read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")
    with av.open(str(result), "r") as container:
        video = container.streams.video[0].codec_context
        assert (video.name, video.pix_fmt) == ("h264", "yuv420p")
    assert [entry.name for entry in result.parent.iterdir()] == ["result.mp4"]


@pytest.mark.parametrize("size", [(64, 48), (64, 50), (66, 48), (66, 50), (2, 2)])
def test_planes_are_where_they_belong(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    pixels = np.full((height, width, 3), (220, 30, 40), np.uint8)
    pixels[height // 2 :] = 30, 60, 230
    lossless = Encoder("libx264", {"preset": "superfast", "qp": "0"})
    source = make_source(tmp_path / "source.mp4")
    with VideoWriter(tmp_path / "result.mp4", source=source, width=width, height=height, encoder=lossless) as writer:
        writer.write(Planes.from_rgb(pixels).copy(), 0.0)
    with av.open(str(tmp_path / "result.mp4"), "r") as container:
        assert np.array_equal(next(container.decode(video=0)).to_ndarray(), Planes.from_rgb(pixels).as_i420())


@pytest.mark.parametrize("matrix", [1, 6])
def test_frames_of_other_colours_are_converted(tmp_path: Path, matrix: int) -> None:
    pixels = np.full((HEIGHT, WIDTH, 3), (220, 30, 40), np.uint8)
    colours_of_first = Colours(matrix, 1, 1)
    source = make_source(tmp_path / "source.mp4")
    with VideoWriter(tmp_path / "result.mp4", source=source, width=WIDTH, height=HEIGHT, colours=colours_of_first) as writer:
        writer.write(Planes.from_rgb(pixels).converted_to(colours_of_first), 0.0)
        writer.write(Planes.from_rgb(pixels), 1.0)
    with av.open(str(tmp_path / "result.mp4"), "r") as container:
        for frame in container.decode(video=0):
            assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (*colours_of_first, 1)
            assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - pixels).max() <= 6


@pytest.mark.parametrize("colour", [(220, 30, 40), (20, 200, 60), (30, 60, 230), (255, 255, 255), (0, 0, 0), (230, 159, 0)])
def test_colours_survive(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    source = make_source(tmp_path / "source.mp4")
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:] = colour
    with VideoWriter(tmp_path / "result.mp4", source=source, width=WIDTH, height=HEIGHT) as writer:
        writer.write(Planes.from_rgb(pixels), 0.0)
    with av.open(str(tmp_path / "result.mp4"), "r") as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (6, 1), "tagged as what it is: SMPTE 170M, limited range"
        assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - colour).max() <= 4


def test_exception_leaves_nothing(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source.mp4", sound="aac")

    def interrupted() -> None:
        with VideoWriter(tmp_path / "out" / "result.mp4", source=source, width=WIDTH, height=HEIGHT) as writer:
            writer.write(Planes.from_rgb(np.zeros((HEIGHT, WIDTH, 3), np.uint8)), 0.0)
            assert len(list((tmp_path / "out").glob(".*.part"))) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list((tmp_path / "out").iterdir()) == []


def test_no_frames_no_file(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source.mp4")
    with VideoWriter(tmp_path / "out" / "result.mp4", source=source, width=WIDTH, height=HEIGHT):
        pass
    assert list((tmp_path / "out").iterdir()) == []


def test_wrong_frames_are_refused(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source.mp4")
    with VideoWriter(tmp_path / "result.mp4", source=source, width=WIDTH, height=HEIGHT) as writer:
        writer.write(Planes.from_rgb(np.zeros((HEIGHT, WIDTH, 3), np.uint8)), 0.0)
        with pytest.raises(ValueError, match="does not come after"):
            writer.write(Planes.from_rgb(np.zeros((HEIGHT, WIDTH, 3), np.uint8)), 0.0)
        with pytest.raises(ValueError, match="a frame of"):
            writer.write(Planes.from_rgb(np.zeros((HEIGHT, WIDTH + 2, 3), np.uint8)), 1.0)


def test_size_that_x264_refuses(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source.mp4")
    writer = VideoWriter(tmp_path / "result.mp4", source=source, width=70_000, height=2)
    with pytest.raises(MediaError, match="70000 x 2 pixels cannot be encoded"), writer:
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["source.mp4"]


def test_names_that_look_like_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = make_source(tmp_path / "source.mp4").rename("concat:a|b%d.mp4")
    result = copy_through(source, Path("http:") / ("é" * 125 + ".mp4"), times_s=[0.0, 0.04])
    assert len(frame_times(result.absolute())) == 2
