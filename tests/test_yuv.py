"""YUV planes of frames, and drawing on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batchemo.media.decode import open_source
from batchemo.records import EMOTIONS, Frame, Medium, OverlayData
from batchemo.render.layout import Layout
from batchemo.render.overlay import OverlayPainter, draw_overlay
from batchemo.yuv import SRGB, Colours, Planes
from tests.made_media import write_clip

BT709 = Colours(1, 1, 1)
MATRICES = [Colours(matrix, 1, 1) for matrix in (1, 2, 5, 6, 9)]


def scene(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth picture, whose colours survive chroma subsampling."""
    coarse = np.random.default_rng(seed).integers(80, 180, (4, 4, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def marks(boxes: list[tuple[float, ...]], *, hidden: bool) -> OverlayData:
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    count = len(corners)
    probabilities = np.full((count, 7), 0.1, np.float32)
    probabilities[np.arange(count), np.arange(count) % 7] = 0.4
    unsure = np.arange(count) % 2 == 1
    return OverlayData(corners, np.arange(count, dtype=np.int32), probabilities, unsure, corners if hidden else corners[:0])


def far(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.abs(one.astype(np.int64) - other)


@pytest.mark.parametrize("colours", MATRICES)
def test_set_and_get_rgb(colours: Colours) -> None:
    pixels = scene(64, 48)
    planes = Planes.from_rgb(np.zeros((48, 64, 3), np.uint8)).converted_to(colours).copy()
    planes.set_rgb(pixels, 0, 0)
    assert far(planes.get_rgb(0, 0, 64, 48), pixels).mean() < 3
    before = planes.copy()
    planes.set_rgb(planes.get_rgb(10, 6, 30, 40), 10, 6)
    assert far(planes.luma, before.luma).max() <= 1
    assert max(far(planes.cb, before.cb).max(), far(planes.cr, before.cr).max()) <= 1


@pytest.mark.parametrize("colours", [Colours(1, 1, 1), Colours(6, 1, 1), Colours(9, 9, 1)])
def test_matrices_are_ffmpegs(colours: Colours) -> None:
    pixels = np.full((32, 32, 3), (200, 60, 30), np.uint8)
    planes = Planes.from_rgb(pixels).converted_to(colours)
    frame = av.VideoFrame.from_ndarray(planes.as_i420(), format="yuv420p")
    frame.colorspace = colours.matrix
    assert far(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), pixels).max() <= 5


@pytest.mark.parametrize("size", [(65, 49), (64, 49), (1, 1), (65, 48)])
def test_odd_sizes_gain_a_repeated_pixel(size: tuple[int, int]) -> None:
    width, height = size
    planes = Planes.from_rgb(scene(width, height))
    assert planes.size == (width + width % 2, height + height % 2)
    if width % 2:
        assert np.array_equal(planes.luma[:, -1], planes.luma[:, -2])
    if height % 2:
        assert np.array_equal(planes.luma[-1], planes.luma[-2])


def test_a_copy_has_room_below_and_shares_one_buffer() -> None:
    planes = Planes.from_rgb(scene(32, 16))
    made = planes.copy(rows=6)
    assert made.size == (32, 22)
    assert np.array_equal(made.luma[:16], planes.luma)
    made.set_rgb(np.full((6, 32, 3), 255, np.uint8), 0, 16)
    assert far(made.get_rgb(0, 16, 32, 22), np.full((6, 32, 3), 255, np.uint8)).max() <= 1
    assert np.shares_memory(made.as_i420(), made.cr)
    assert np.array_equal(made.as_i420()[:22], made.luma)
    apart = Planes(planes.luma.copy(), planes.cb.copy(), planes.cr.copy())
    assert np.array_equal(apart.as_i420(), planes.as_i420())


def test_planes_that_do_not_agree_are_refused() -> None:
    with pytest.raises(ValueError, match="do not agree"):
        Planes(np.zeros((4, 4), np.uint8), np.zeros((2, 2), np.uint8), np.zeros((2, 1), np.uint8))


boxes = st.lists(st.tuples(st.floats(-40, 300), st.floats(-40, 200), st.floats(2, 250), st.floats(2, 250)), max_size=4)


@given(boxes=boxes, odd=st.booleans(), hidden=st.booleans())
@settings(max_examples=40, deadline=None)
def test_drawing_on_planes_equals_drawing_on_pixels(boxes: list[tuple[float, ...]], odd: bool, hidden: bool) -> None:
    width, height = (321, 181) if odd else (320, 180)
    pixels = scene(width, height)
    faces = marks([(left, top, left + wide, top + high) for left, top, wide, high in boxes], hidden=hidden)
    drawn = np.pad(draw_overlay(pixels, faces, labels=EMOTIONS), ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    expected, found = Planes.from_rgb(pixels).copy(), Planes.from_rgb(pixels).copy()
    expected.set_rgb(drawn, 0, 0)
    OverlayPainter(EMOTIONS, Layout(EMOTIONS, width=width, height=height)).draw(found, faces, time_s=0.0)
    for one, other in zip((found.luma, found.cb, found.cr), (expected.luma, expected.cb, expected.cr), strict=True):
        assert far(one, other).max() <= 8


def test_other_areas_are_unchanged() -> None:
    planes = Planes.from_rgb(scene(640, 360))
    found = planes.copy()
    OverlayPainter(EMOTIONS, Layout(EMOTIONS, width=640, height=360)).draw(found, marks([(200, 100, 300, 220)], hidden=False), time_s=0.0)
    changed = found.luma != planes.luma
    assert changed[100:220, 200:300].any()
    assert not changed[112:208, 212:288].any(), "the face itself"
    assert not changed[:, 560:].any()
    assert not (found.cb != planes.cb)[:, 280:].any()


def test_painter_refuses_labels_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="3 labels for 7 probabilities"):
        OverlayPainter(("a", "b", "c"), Layout(("a", "b", "c"), width=64, height=48)).draw(
            Planes.from_rgb(scene(64, 48)).copy(), marks([(1, 1, 9, 9)], hidden=False), time_s=0.0
        )


def write_scenes(
    path: Path,
    *,
    size: tuple[int, int] = (64, 48),
    form: str = "yuv420p",
    colours: Colours | None = None,
    full: bool = False,
    told_only: bool = False,
) -> Path:
    def convert(frame: av.VideoFrame) -> av.VideoFrame:
        matrix = None if colours is None or told_only else colours.matrix
        return frame.reformat(format=form, dst_colorspace=matrix, dst_color_range=2 if full else 1)

    tags: dict[str, Any] = {} if colours is None else dict(zip(("colorspace", "color_primaries", "color_trc"), colours, strict=True))
    scenes = [scene(*size, seed=index) for index in range(5)]
    options = {"qp": "1"}
    return write_clip(path, scenes, rate=5, pixel_format=form, options=options, convert=convert, color_range=2 if full else 1, **tags).path


def frames_of(path: Path) -> list[Frame]:
    return list(open_source(Medium(path, path.name, path.name, "video"), decoder="pyav").frames())


@pytest.mark.parametrize("colours", [None, BT709, Colours(6, 6, 6)])
def test_videos_give_their_own_planes(tmp_path: Path, colours: Colours | None) -> None:
    path = write_scenes(tmp_path / "clip.mp4", colours=colours)
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]
    for index, frame in enumerate(frames_of(path)):
        assert np.array_equal(frame.planes.as_i420(), expected[index])
        assert frame.planes.colours == (colours or Colours(2, 2, 2))
        assert far(frame.planes.get_rgb(0, 0, 64, 48), frame.pixels).mean() < 3


@pytest.mark.parametrize(
    "unusual",
    [
        {"size": (63, 47), "form": "yuv444p"},
        {"form": "yuv422p"},
        {"form": "yuv420p10le"},
        {"full": True},
        {"colours": Colours(9, 9, 16)},
        {"colours": Colours(9, 9, 18)},
        {"colours": Colours(7, 1, 1)},
    ],
)
def test_others_give_planes_of_their_pixels(tmp_path: Path, unusual: dict[str, object]) -> None:
    path = write_scenes(tmp_path / "clip.mp4", **unusual)  # type: ignore[arg-type]
    for frame in frames_of(path):
        assert frame.planes.colours == SRGB
        assert np.array_equal(frame.planes.as_i420(), Planes.from_rgb(frame.pixels).as_i420())


@pytest.mark.parametrize("matrix", [3, 8, 14])
def test_a_matrix_that_ffmpeg_does_not_know_is_read_as_none(tmp_path: Path, matrix: int) -> None:
    plain, unknown = (frames_of(write_scenes(tmp_path / f"{of}.mp4", colours=Colours(of, 2, 2), told_only=True)) for of in (2, matrix))
    for one, other in zip(plain, unknown, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert np.array_equal(one.planes.as_i420(), other.planes.as_i420())


def test_pictures_give_converted_planes() -> None:
    pixels = scene(64, 48)
    assert np.array_equal(Frame(0, 0.0, pixels).planes.as_i420(), Planes.from_rgb(pixels).as_i420())
    with pytest.raises(ValueError, match="has no picture"):
        Frame(-1, 0.0, None).planes  # noqa: B018 (raises)


def test_planes_are_oriented_like_the_picture() -> None:
    path = Path(__file__).parents[1] / "sample_media" / "rotated.mp4"
    frame = frames_of(path)[0]
    planes = frame.planes
    assert planes.colours != SRGB, "the video's own"
    assert planes.size == frame.pixels.shape[1::-1]
    assert frame.pixels.shape[0] > frame.pixels.shape[1]
    assert far(planes.get_rgb(0, 0, *planes.size), frame.pixels).mean() < 3
