"""`verify --deep` proves by another way of reading that each row is about the frame of its time."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from batchemo.errors import UsageError
from batchemo.media import presentation
from batchemo.media.fingerprint import fingerprint_of_grey
from batchemo.options import merge_options
from batchemo.run.run import RunCallbacks, run_media
from batchemo.verify.audit import verify
from batchemo.verify.second_reading import Reader
from checks.corpus.patches import Movie

FRAMES, SIZE = 24, (192, 128)

both = pytest.mark.parametrize("reader", ["pyav", pytest.param("ffmpeg", marks=pytest.mark.needs("ffmpeg"))])


def scene(index: int) -> NDArray[np.uint8]:
    """Blurred noise that rolls on by 16 pixels a frame."""
    noise = np.random.default_rng(7).integers(0, 255, (SIZE[1], 2 * SIZE[0], 3), np.uint8)
    return np.roll(cv2.GaussianBlur(noise, (0, 0), 8) * 3, -16 * index, 1)[:, : SIZE[0]].astype(np.uint8)


def write_film(path: Path, *, rotation: int | None = None, aspect: Fraction | None = None) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"bf": "2", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for index in range(FRAMES):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(scene(index), "rgb24")))
        output.mux(stream.encode(None))
    return path


def analysed(path: Path, out: Path, **options: object) -> Path:
    chosen = {"workers": 1, "annotate": False, "report": False, **options}
    run_media([path], out, merge_options(chosen, environment={}), RunCallbacks(lambda _plan, _heartbeats: None, lambda _row: None))
    return out


def with_fingerprints(results: Path, change: Callable[[list[int]], list[int]]) -> None:
    (path,) = (results / "frames").glob("*.parquet")
    table = pq.ParquetFile(path).read()
    made = pa.array(change(table["fingerprint"].to_pylist()), pa.int64())
    place = table.schema.get_field_index("fingerprint")
    pq.write_table(table.set_column(place, table.schema.field(place), made), path)


def kinds(results: Path, reader: Reader) -> list[str]:
    return [problem.kind for problem in verify(results, deep=True, reader=reader).problems]


@both
@pytest.mark.parametrize("options", [{}, {"decoder": "pyav"}, {"sample_fps": 5.0}], ids=["whole", "pyav", "sampled"])
def test_what_a_run_has_seen_is_found_again(tmp_path: Path, reader: Reader, options: dict[str, object]) -> None:
    assert kinds(analysed(write_film(tmp_path / "a.mp4"), tmp_path / "out", **options), reader) == []


@both
@pytest.mark.parametrize("rotation", [None, 90])
def test_cropped_films_are_found_again(tmp_path: Path, reader: Reader, rotation: int | None) -> None:
    path = write_film(tmp_path / "a.mp4", rotation=rotation, aspect=Fraction(4, 3))
    movie = Movie(path)
    movie.set_clean_aperture(*SIZE, (16, 5, 33, 24))
    movie.write()
    assert kinds(analysed(path, tmp_path / "out"), reader) == []


@both
@pytest.mark.parametrize("name", ["together.ts", "bare.h264"])
def test_films_without_a_clock_of_their_own_are_found_again(name: str, tmp_path: Path, reader: Reader) -> None:
    """The ffmpeg command gives frames of files that were strung together, and of bare streams, other times."""
    with av.open(str(write_film(tmp_path / "a.mp4"))) as source, av.open(str(tmp_path / name), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    if name.startswith("together"):
        (tmp_path / name).write_bytes(2 * (tmp_path / name).read_bytes())
    assert kinds(analysed(tmp_path / name, tmp_path / "out"), reader) == []


@both
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_turned_films_are_found_again(tmp_path: Path, reader: Reader, rotation: int) -> None:
    assert kinds(analysed(write_film(tmp_path / "a.mp4", rotation=rotation), tmp_path / "out"), reader) == []


@both
@pytest.mark.parametrize(
    "change",
    [
        lambda told: [*told[12:], *told[:12]],
        lambda told: [*told[:5], told[17], *told[6:]],
        lambda told: [
            fingerprint_of_grey(np.ascontiguousarray(cv2.cvtColor(scene(i), cv2.COLOR_RGB2GRAY)[:, ::-1])) for i in range(len(told))
        ],
        lambda told: [
            fingerprint_of_grey(np.ascontiguousarray(np.rot90(cv2.cvtColor(scene(i), cv2.COLOR_RGB2GRAY)))) for i in range(len(told))
        ],
    ],
    ids=["half a second off", "one row of another frame", "mirrored", "rotated"],
)
def test_a_row_of_another_picture_is_a_finding(tmp_path: Path, reader: Reader, change: Callable[[list[int]], list[int]]) -> None:
    results = analysed(write_film(tmp_path / "a.mp4"), tmp_path / "out")
    with_fingerprints(results, change)
    assert kinds(results, reader) == ["picture"]
    found = verify(results, deep=True, reader=reader)
    assert "first frame" in found.problems[0].message
    assert found.reader == reader
    assert (verify(results).problems, verify(results).reader) == ((), None)


@both
def test_what_a_careless_run_would_see_is_a_finding(tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that knows nothing of orientations or of the shape of pixels."""
    turned = write_film(tmp_path / "turned.mp4", rotation=180)
    wide = write_film(tmp_path / "wide.mp4", aspect=Fraction(4, 3))
    with monkeypatch.context() as careless:
        careless.setattr(presentation, "orientation_of", lambda _frame: None)
        careless.setattr(presentation, "_square", lambda width, height, _aspect: (width, height))
        analysed(turned, tmp_path / "turned", decoder="pyav")
        analysed(wide, tmp_path / "wide", decoder="pyav")
    assert kinds(tmp_path / "turned", reader) == ["picture"]
    (problem,) = verify(tmp_path / "wide", deep=True, reader=reader).problems
    assert "is 256 x 128 pixels, its row says 192 x 128" in problem.message


def test_pictures_are_read_again_by_pillow(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), scene(0))
    results = analysed(path, tmp_path / "out")
    assert kinds(results, "pyav") == []
    with_fingerprints(results, lambda told: [told[0] ^ 0xFFFF])
    assert kinds(results, "pyav") == ["picture"]


def test_a_reader_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = analysed(write_film(tmp_path / "a.mp4"), tmp_path / "out")
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(UsageError, match="needs the ffmpeg command; on Debian: sudo apt-get install ffmpeg"):
        verify(results, deep=True, reader="ffmpeg")
