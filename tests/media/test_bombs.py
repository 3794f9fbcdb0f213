"""Small files that claim to be enormous: refused by their headers, or read for what they hold, with little memory and time."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.made_media import shades, write_clip
from tests.needs import need

SIDE = 60_000
LIMIT_BYTES = 4 * 2**30
"""Limit for the address space, of which the libraries alone use more than 1 GB."""

READ = """
import json, resource, sys, time
from pathlib import Path
from batchemo.media.decode import open_source
from batchemo.media.sniff import sniff
from batchemo.errors import MediaError
from batchemo.records import Medium
import cv2, av, decord
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
for name in sys.argv[2:]:
    path = Path(name)
    kind = 'video' if sniff(path) == 'video' else 'image'
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        source = open_source(Medium(path, path.name, path.name, kind))
        results = sum(1 for _ in source.frames())
    except MediaError as error:
        results = error.kind
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps([path.name, kind, results, grown_mb, time.process_time() - began]))
"""


def _png(content: bytearray) -> None:
    content[16:24] = struct.pack(">II", SIDE, SIDE)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))


def _jpg(content: bytearray) -> None:
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", SIDE, SIDE)


def _bmp(content: bytearray) -> None:
    content[18:26] = struct.pack("<ii", SIDE, SIDE)


def _gif(content: bytearray) -> None:
    content[6:10] = struct.pack("<HH", SIDE, SIDE)


def _tiff(content: bytearray) -> None:
    for tag in (256, 257):
        at = content.index(struct.pack("<HHI", tag, 4, 1)) + 8
        content[at : at + 4] = struct.pack("<I", SIDE)


def _webp(content: bytearray) -> None:
    at = content.index(b"\x9d\x01\x2a") + 3
    content[at : at + 4] = struct.pack("<HH", 0x3FFF, 0x3FFF)


def _ppm(content: bytearray) -> None:
    content[:] = b"P6\n60000 60000\n255\n" + bytes(100)


def _radiance(content: bytearray) -> None:
    """Only OpenCV knows the format; 40 GB when decoded."""
    content[:] = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 60000 +X 60000\n" + bytes(100)


PICTURES: dict[str, Callable[[bytearray], None]] = {
    **{"a.png": _png, "a.jpg": _jpg, "a.bmp": _bmp, "a.gif": _gif, "a.tiff": _tiff, "a.webp": _webp, "a.ppm": _ppm},
    "radiance.jpg": _radiance,
}


def _put(content: bytearray, at: int, *numbers: int, order: str = ">") -> bytearray:
    changed = bytearray(content)
    changed[at : at + 4 * len(numbers)] = struct.pack(f"{order}{len(numbers)}I", *numbers)
    return changed


def write_claims(folder: Path) -> list[Path]:
    """Videos of five frames that claim a billion: in the times, in the sizes, in both, and in the headers of an AVI; then frames that
    last for days, of which the edit list leaves one; and huge frames."""
    five = shades(5, (64, 64), step=1)
    mp4, avi = (bytearray(write_clip(folder / name, five, codec="mpeg4").path.read_bytes()) for name in ("five.mp4", "five.avi"))
    times, sizes = mp4.index(b"stts") + 12, mp4.index(b"stsz") + 8
    claims = {
        "times.mp4": _put(mp4, times, 10**9),
        "sizes.mp4": _put(mp4, sizes, 20, 10**9),
        "both.mp4": _put(_put(mp4, times, 10**9), sizes, 20, 10**9),
        "headers.avi": _put(_put(avi, avi.index(b"avih") + 24, 10**9, order="<"), avi.index(b"strh") + 40, 10**9, order="<"),
        "long.mp4": _put(mp4, times + 4, 2**31 - 1),
    }
    for name, content in claims.items():
        (folder / name).write_bytes(content)
    pictures = [Image.new("L", (32, 32), shade) for shade in (0, 200)]
    pictures[0].save(folder / "moving.gif", save_all=True, append_images=pictures[1:])
    content = bytearray((folder / "moving.gif").read_bytes())
    _gif(content)
    (folder / "moving.gif").write_bytes(content)
    return [folder / name for name in (*claims, "moving.gif")]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str | int, float, float]]:
    """For each file: kind, error or number of frames, MB, and processor seconds."""
    need("decord")
    folder = tmp_path_factory.mktemp("bombs")
    for name, change in PICTURES.items():
        Image.effect_noise((32, 32), 80).convert("RGB").save(folder / name)
        content = bytearray((folder / name).read_bytes())
        change(content)
        (folder / name).write_bytes(content)
    paths = [*(folder / name for name in PICTURES), *write_claims(folder)]
    ended = subprocess.run(
        [sys.executable, "-c", READ, str(LIMIT_BYTES), *map(str, paths)], capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(rows) == len(paths)
    return {name: tuple(facts) for name, *facts in rows}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(results: dict[str, tuple[str, str | int, float, float]], name: str) -> None:
    _, error, grown_mb, seconds = results[name]
    assert error == ("unsupported" if name == "radiance.jpg" else "too_large")
    assert grown_mb < 50
    assert seconds < 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("times.mp4", 5),
        ("sizes.mp4", "no_frames"),
        ("both.mp4", "no_frames"),
        ("headers.avi", 5),
        ("long.mp4", 1),
        ("moving.gif", "no_frames"),
    ],
)
def test_videos(results: dict[str, tuple[str, str | int, float, float]], name: str, expected: str | int) -> None:
    kind, found, grown_mb, seconds = results[name]
    assert (kind, found) == ("video", expected)
    assert grown_mb < 200
    assert seconds < 2


def test_a_billion_claimed_frames_are_not_missing_from_a_complete_file(tmp_path: Path) -> None:
    from batchemo.media.pyav import PyAVSource

    (path,) = [path for path in write_claims(tmp_path) if path.name == "headers.avi"]
    source = PyAVSource(path)
    assert sum(1 for _ in source.frames()) == 5
    assert source.report.missing == PyAVSource(path).count().missing == 0
