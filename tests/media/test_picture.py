"""Pictures of every sort come out upright, RGB, 8 bits a channel, on white; what is broken or too large is refused."""

from __future__ import annotations

import struct
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from batchemo.errors import MediaError
from batchemo.media import picture
from batchemo.media.decode import open_source
from batchemo.media.picture import read_picture
from batchemo.records import Medium

HEIGHT, WIDTH = 24, 40
Pixels = NDArray[np.uint8]


def smooth_picture() -> Pixels:
    """Another colour in each corner, and smooth enough to survive JPEG."""
    corners = np.array([[(250, 10, 10), (10, 250, 10)], [(10, 10, 250), (240, 240, 20)]], np.uint8)
    return np.asarray(cv2.resize(corners, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR), np.uint8)


PIXELS = smooth_picture()
PICTURE = Image.fromarray(PIXELS)
GREY = PICTURE.convert("L")
ALPHA = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))


def on_white(colours: NDArray[Any], alpha: NDArray[Any]) -> Pixels:
    share = alpha[..., None] / 255
    return np.asarray(np.floor(colours * share + 255 * (1 - share) + 0.5), np.uint8)


def grey_as_rgb() -> Pixels:
    return np.repeat(np.asarray(GREY)[:, :, None], 3, axis=2)


def check(path: Path, expected: Pixels, *, within: int = 0) -> None:
    found = read_picture(path)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= within


def refusal(path: Path) -> MediaError:
    with pytest.raises(MediaError) as caught:
        read_picture(path)
    assert str(path) in str(caught.value)
    return caught.value


# Formats


@pytest.mark.parametrize(
    ("name", "options", "within"),
    [
        ("a.png", {}, 0),
        ("a.bmp", {}, 0),
        ("a.tiff", {}, 0),
        ("a.webp", {"lossless": True}, 0),
        ("a.webp", {"quality": 95}, 30),
        ("a.jpg", {"quality": 95}, 30),
        ("a.jpg", {"quality": 95, "progressive": True}, 30),
        ("a.ppm", {}, 0),
    ],
)
def test_formats(tmp_path: Path, name: str, options: dict[str, Any], within: int) -> None:
    PICTURE.save(tmp_path / name, **options)
    check(tmp_path / name, PIXELS, within=within)


def test_a_picture_is_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PICTURE.save(path)
    source = open_source(Medium(path, "a.png", "a.png", "image"))
    (frame,) = source.frames(sample_fps=1)
    assert (frame.index, frame.time_s, source.decoder) == (0, 0.0, "opencv")
    assert (source.found.decoded, source.found.width, source.found.height) == (1, WIDTH, HEIGHT)
    assert not list(source.frames(start_index=1))


def test_cmyk(tmp_path: Path) -> None:
    converted = PICTURE.convert("CMYK")
    converted.save(tmp_path / "a.jpg", quality=95)
    check(tmp_path / "a.jpg", np.asarray(converted.convert("RGB")), within=30)


def test_grey(tmp_path: Path) -> None:
    GREY.save(tmp_path / "a.png")
    GREY.save(tmp_path / "a.jpg", quality=98)
    check(tmp_path / "a.png", grey_as_rgb())
    check(tmp_path / "a.jpg", grey_as_rgb(), within=10)


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_16_bits(tmp_path: Path, name: str) -> None:
    cv2.imwrite(str(tmp_path / name), np.asarray(GREY).astype(np.uint16) * 257)
    check(tmp_path / name, grey_as_rgb())
    cv2.imwrite(str(tmp_path / name), PIXELS[:, :, ::-1].astype(np.uint16) * 257)
    check(tmp_path / name, PIXELS)


def test_16_bits_with_transparency(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([PIXELS[:, :, ::-1], ALPHA]).astype(np.uint16) * 257)
    check(tmp_path / "a.png", on_white(PIXELS, ALPHA))


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tiff"])
def test_transparency_is_on_white(tmp_path: Path, name: str) -> None:
    # OpenCV mixes the colours of half-transparent TIFFs with black already, so theirs are all or nothing.
    alpha = np.where(ALPHA > 99, 255, 0).astype(np.uint8) if name == "a.tiff" else ALPHA
    picture = Image.merge("RGBA", (*PICTURE.split(), Image.fromarray(alpha)))
    options: dict[str, Any] = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    picture.save(tmp_path / name, **options)
    check(tmp_path / name, on_white(PIXELS, alpha))


def test_grey_with_transparency(tmp_path: Path) -> None:
    Image.merge("LA", (GREY, Image.fromarray(ALPHA))).save(tmp_path / "a.png")
    check(tmp_path / "a.png", on_white(grey_as_rgb(), ALPHA))


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_palettes(tmp_path: Path, name: str) -> None:
    palette = PICTURE.quantize(16)
    palette.save(tmp_path / name)
    check(tmp_path / name, np.asarray(palette.convert("RGB")))
    palette.save(tmp_path / name, transparency=3)
    see_through = np.asarray(palette) == 3
    assert see_through.any()
    check(tmp_path / name, np.where(see_through[:, :, None], 255, np.asarray(palette.convert("RGB"))).astype(np.uint8))


def test_one_pixel(tmp_path: Path) -> None:
    for mode, colour, expected in (("RGB", (1, 2, 3), (1, 2, 3)), ("RGBA", (0, 0, 0, 0), (255, 255, 255)), ("L", 7, (7, 7, 7))):
        Image.new(mode, (1, 1), colour).save(tmp_path / "a.png")
        check(tmp_path / "a.png", np.array([[expected]], np.uint8))


# Orientation


STORED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}
"""How a camera that holds an upright picture stores it, by the orientation that it notes."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "transparent.png", "a.webp"])
def test_exif_orientation_is_applied_once(tmp_path: Path, orientation: int, name: str) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](PIXELS)))
    if name == "transparent.png":
        stored.putalpha(255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = (
        {"lossless": True} if name.endswith("webp") else {"quality": 98, "subsampling": 0} if name.endswith("jpg") else {}
    )
    stored.save(tmp_path / name, exif=exif, **options)
    check(tmp_path / name, PIXELS, within=12 if name.endswith("jpg") else 0)


def test_an_unknown_orientation_is_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 42
    picture = PICTURE.convert("RGBA")
    picture.save(tmp_path / "a.png", exif=exif)
    check(tmp_path / "a.png", PIXELS)


# Damage


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tiff", "a.gif"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_a_picture_that_is_cut_off_is_not_half_shown(tmp_path: Path, name: str, kept: float, capfd: pytest.CaptureFixture[str]) -> None:
    Image.effect_noise((200, 150), 80).convert("RGB").save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * kept)])
    refused = refusal(tmp_path / name)
    assert refused.kind == "damaged"
    assert str(refused).startswith(f"{tmp_path / name} is a damaged picture, or none (")
    assert str(refused).endswith("); copy it again, or open it in a viewer and save it as PNG")
    assert "OpenCV" not in capfd.readouterr().err


def test_a_jpeg_with_bytes_after_its_end_is_fine(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "a.jpg", quality=98, subsampling=0)
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes() + bytes(500))
    check(tmp_path / "a.jpg", PIXELS, within=12)


@pytest.mark.parametrize(("content", "kind"), [(b"", "empty"), (b"no picture\n" * 50, "damaged"), (b"\xff\xd8\xff\xe0", "damaged")])
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert refusal(tmp_path / "a.jpg").kind == kind


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere.jpg").kind == refusal(tmp_path).kind == "unreadable"


def png_of(width: int, height: int) -> bytes:
    """A small file of a huge black picture."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    squeezer = zlib.compressobj(9)
    row = bytes(width // 8 + 2)
    rows = b"".join(squeezer.compress(row) for _ in range(height)) + squeezer.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(30_000, 30_000), (20_000, 10_001)])
def test_huge_pictures_are_refused_undecoded(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "a.png").write_bytes(png_of(*size))
    started = time.process_time()
    assert refusal(tmp_path / "a.png").kind == "too_large"
    assert time.process_time() - started < 0.5


def test_a_picture_is_decoded_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda content, flags: decoded.append(flags) or decode(content, flags))
    path = tmp_path / "a.png"
    PICTURE.save(path)
    first = read_picture(path)
    assert read_picture(path) is first
    assert not first.flags.writeable
    PICTURE.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path, compress_level=0)
    np.testing.assert_array_equal(read_picture(path), PIXELS[:, ::-1])
    assert len(decoded) == 2


def test_several_pictures_stay_in_memory_as_long_as_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "_MOST_KEPT_BYTES", 2 * PIXELS.nbytes)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        PICTURE.save(path)
    first, second = map(read_picture, paths[:2])
    assert read_picture(paths[0]) is first
    read_picture(paths[2])
    assert read_picture(paths[0]) is first
    assert read_picture(paths[1]) is not second


def test_a_large_picture_does_not_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "_MOST_KEPT_BYTES", PIXELS.nbytes - 1)
    path = tmp_path / "a.png"
    PICTURE.save(path)
    assert read_picture(path) is not read_picture(path)
