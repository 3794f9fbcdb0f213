"""`verify --deep` proves by a second decoder that each row belongs to the frame of its time."""

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

from batchemo.cli.messages import print_verification
from batchemo.errors import UsageError
from batchemo.media import presentation
from batchemo.media.fingerprint import fingerprint_of_grey
from batchemo.verify.audit import verify
from batchemo.verify.redecode import Reader
from checks.corpus.patches import Movie
from tests.made_media import write_clip
from tests.running import run_here

FRAMES, SIZE = 24, (192, 128)

both = pytest.mark.parametrize("reader", ["pyav", pytest.param("ffmpeg", marks=pytest.mark.needs("ffmpeg"))])


def scene(index: int) -> NDArray[np.uint8]:
    """Blurred noise that moves by 16 pixels a frame."""
    noise = np.random.default_rng(7).integers(0, 255, (SIZE[1], 2 * SIZE[0], 3), np.uint8)
    return np.roll(cv2.GaussianBlur(noise, (0, 0), 8) * 3, -16 * index, 1)[:, : SIZE[0]].astype(np.uint8)


def write_noise(path: Path, *, rotation: int = 0, **context: object) -> Path:
    return write_clip(path, map(scene, range(FRAMES)), options={"bf": "2", "g": "12"}, rotation=rotation, **context).path  # type: ignore[arg-type]


def remux(source: Path, path: Path) -> Path:
    with av.open(str(source)) as packets, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(packets.streams.video[0])
        for packet in packets.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    return path


def analysed(path: Path, out: Path, **options: object) -> Path:
    run_here(path, out=out, annotate=False, report=False, **options)
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
def test_results_of_a_run_have_no_problems(tmp_path: Path, reader: Reader, options: dict[str, object]) -> None:
    assert kinds(analysed(write_noise(tmp_path / "a.mp4"), tmp_path / "out", **options), reader) == []


@both
@pytest.mark.parametrize("rotation", [0, 90])
def test_cropped_videos_have_no_problems(tmp_path: Path, reader: Reader, rotation: int) -> None:
    path = write_noise(tmp_path / "a.mp4", rotation=rotation, sample_aspect_ratio=Fraction(4, 3))
    movie = Movie(path)
    movie.set_clean_aperture(*SIZE, (16, 5, 33, 24))
    movie.write()
    assert kinds(analysed(path, tmp_path / "out"), reader) == []


@both
@pytest.mark.parametrize("name", ["together.ts", "bare.h264"])
def test_videos_without_times_have_no_problems(name: str, tmp_path: Path, reader: Reader) -> None:
    """The ffmpeg command gives frames of concatenated files, and of elementary streams, other times."""
    path = remux(write_noise(tmp_path / "a.mp4"), tmp_path / name)
    if name.startswith("together"):
        path.write_bytes(2 * path.read_bytes())
    assert kinds(analysed(path, tmp_path / "out"), reader) == []


@both
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_videos_have_no_problems(tmp_path: Path, reader: Reader, rotation: int) -> None:
    assert kinds(analysed(write_noise(tmp_path / "a.mp4", rotation=rotation), tmp_path / "out"), reader) == []


@both
@pytest.mark.parametrize(
    "change",
    [
        lambda values: [*values[12:], *values[:12]],
        lambda values: [*values[:5], values[17], *values[6:]],
        lambda values: [
            fingerprint_of_grey(np.ascontiguousarray(cv2.cvtColor(scene(i), cv2.COLOR_RGB2GRAY)[:, ::-1])) for i in range(len(values))
        ],
        lambda values: [
            fingerprint_of_grey(np.ascontiguousarray(np.rot90(cv2.cvtColor(scene(i), cv2.COLOR_RGB2GRAY)))) for i in range(len(values))
        ],
    ],
    ids=["half a second off", "one row of another frame", "mirrored", "rotated"],
)
def test_a_row_of_another_frame_is_a_problem(tmp_path: Path, reader: Reader, change: Callable[[list[int]], list[int]]) -> None:
    results = analysed(write_noise(tmp_path / "a.mp4"), tmp_path / "out")
    with_fingerprints(results, change)
    assert kinds(results, reader) == ["picture"]
    found = verify(results, deep=True, reader=reader)
    assert "first frame" in found.problems[0].message
    assert found.reader == reader
    assert (verify(results).problems, verify(results).reader) == ((), None)


@both
def test_ignored_presentation_is_a_problem(tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ignores orientation or the pixel aspect ratio."""
    turned = write_noise(tmp_path / "turned.mp4", rotation=180)
    wide = write_noise(tmp_path / "wide.mp4", sample_aspect_ratio=Fraction(4, 3))
    with monkeypatch.context() as careless:
        careless.setattr(presentation, "orientation_of", lambda _frame: None)
        careless.setattr(presentation, "_square_pixel_size", lambda width, height, _aspect: (width, height))
        analysed(turned, tmp_path / "turned", decoder="pyav")
        analysed(wide, tmp_path / "wide", decoder="pyav")
    assert kinds(tmp_path / "turned", reader) == ["picture"]
    (problem,) = verify(tmp_path / "wide", deep=True, reader=reader).problems
    assert "is 256 x 128 pixels, its row says 192 x 128" in problem.message


def test_pictures_are_decoded_by_pillow(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), scene(0))
    results = analysed(path, tmp_path / "out")
    assert kinds(results, "pyav") == []
    with_fingerprints(results, lambda values: [values[0] ^ 0xFFFF])
    assert kinds(results, "pyav") == ["picture"]


def test_a_missing_reader_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = analysed(write_noise(tmp_path / "a.mp4"), tmp_path / "out")
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(UsageError, match="needs the ffmpeg command; on Debian: sudo apt-get install ffmpeg"):
        verify(results, deep=True, reader="ffmpeg")


@pytest.mark.needs("ffmpeg")
def test_each_medium_is_counted_for_the_reader_that_decoded_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The ffmpeg command decodes neither pictures nor videos whose frames have no times of their own."""
    folder = tmp_path / "in"
    folder.mkdir()
    remux(write_noise(folder / "a.mp4"), folder / "bare.h264")
    write_noise(folder / "b.mp4")
    cv2.imwrite(str(folder / "picture.jpg"), scene(0))
    (folder / "empty.mp4").touch()
    found = verify(analysed(folder, tmp_path / "out"), deep=True, reader="ffmpeg")
    assert (found.problems, found.media, found.reader) == ((), 5, "ffmpeg")
    assert found.decoded_by == {"ffmpeg": 2, "pyav": 1, "pillow": 1}, "the empty file is not decoded"
    print_verification(found)
    assert "Media decoded again: 2 by the ffmpeg command, 1 by PyAV, 1 by Pillow." in " ".join(capsys.readouterr().err.split())
