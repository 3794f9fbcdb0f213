"""Pictures of every kind are read upright, as RGB with 8 bits per channel, on white; broken or too large ones are refused."""

from __future__ import annotations

import io
import itertools
import re
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from batchemo.errors import MediaError
from batchemo.media import picture
from batchemo.media.decode import open_source
from batchemo.media.picture import read_picture
from batchemo.media.pillow import to_rgb
from batchemo.records import Medium
from tests.heic import heic_of, mirrored, rotated

HEIGHT, WIDTH = 24, 40
Pixels = NDArray[np.uint8]


def smooth_picture() -> Pixels:
    """Different colours in the corners; smooth enough to survive JPEG."""
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
    assert (frame.index, frame.time_s, source.decoder) == (0, 0.0, "pillow")
    assert (source.report.decoded, source.report.width, source.report.height) == (1, WIDTH, HEIGHT)
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
"""How a camera stores an upright picture, by the EXIF orientation that it writes."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("name", "options", "within"),
    [
        ("a.jpg", {"quality": 98, "subsampling": 0}, 12),
        ("grey.jpg", {"quality": 98}, 12),
        ("a.png", {}, 0),
        ("transparent.png", {}, 0),
        ("16.png", {}, 0),
        ("a.webp", {"lossless": True}, 0),
        ("transparent.webp", {"lossless": True}, 0),
        ("a.tiff", {}, 0),
        ("lzw.tiff", {"compression": "tiff_lzw"}, 0),
        # Pillow writes irot and imir.
        ("a.avif", {"quality": 100, "subsampling": "4:4:4"}, 6),
    ],
)
def test_orientation_is_applied_once(tmp_path: Path, orientation: int, name: str, options: dict[str, Any], within: int) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](PIXELS)))
    expected = PIXELS
    if name.startswith("transparent"):
        stored.putalpha(255)
    if name.startswith(("grey", "16")):
        stored, expected = stored.convert("L"), grey_as_rgb()
    if name.startswith("16"):
        stored = Image.fromarray(np.asarray(stored).astype(np.uint16) * 257)
    stored.save(tmp_path / name, exif=exif_of(orientation), **options)
    check(tmp_path / name, expected, within=within)


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_webp_whose_exif_has_a_prefix(tmp_path: Path, orientation: int) -> None:
    """As ImageMagick and libwebp's tools write it."""
    file = io.BytesIO()
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](PIXELS)))
    stored.save(file, "WEBP", lossless=True, exif=exif_of(orientation).tobytes().removeprefix(b"Exif\0\0"))
    content = file.getvalue()
    at = content.index(b"EXIF")
    body = b"Exif\0\0" + content[at + 8 : at + 8 + int.from_bytes(content[at + 4 : at + 8], "little")]
    content = content[:at] + b"EXIF" + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    (tmp_path / "a.webp").write_bytes(b"RIFF" + struct.pack("<I", len(content) - 8) + content[8:])
    check(tmp_path / "a.webp", PIXELS)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_that_comes_after_the_pixels_of_a_png(tmp_path: Path, orientation: int) -> None:
    Image.fromarray(np.ascontiguousarray(STORED[orientation](PIXELS))).save(tmp_path / "a.png")
    content, end = (tmp_path / "a.png").read_bytes(), png_chunk(b"IEND", b"")
    exif = png_chunk(b"eXIf", exif_of(orientation).tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "a.png").write_bytes(content.removesuffix(end) + exif + end)
    check(tmp_path / "a.png", PIXELS)


HEIC_PIXELS = np.asarray(cv2.resize(PIXELS, (80, 64), interpolation=cv2.INTER_LINEAR), np.uint8)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_orientation_of_heic(tmp_path: Path, turns: int, axis: int | None) -> None:
    (tmp_path / "a.heic").write_bytes(heic_of(HEIC_PIXELS, rotated(turns), *([] if axis is None else [mirrored(axis)])))
    expected = np.rot90(HEIC_PIXELS, turns)
    check(tmp_path / "a.heic", expected if axis is None else np.flip(expected, axis), within=8)


def test_the_exif_of_heic_turns_nothing(tmp_path: Path) -> None:
    """Cameras write the orientation twice; irot counts (ISO/IEC 23008-12)."""
    (tmp_path / "a.heic").write_bytes(heic_of(HEIC_PIXELS, rotated(1)))
    assert read_picture(tmp_path / "a.heic").shape == (80, 64, 3)


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\xff", b"Exif\0\0" + bytes(30), b"no EXIF at all"])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_damaged_exif_costs_no_picture(tmp_path: Path, name: str, exif: bytes) -> None:
    PICTURE.save(tmp_path / name, exif=exif, quality=98)
    assert read_picture(tmp_path / name).shape == PIXELS.shape


def test_an_unknown_orientation_is_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 42
    picture = PICTURE.convert("RGBA")
    picture.save(tmp_path / "a.png", exif=exif)
    check(tmp_path / "a.png", PIXELS)


# Modes


@pytest.mark.parametrize("name", ["a.tiff", "lzw.tiff", "a.png", "a.bmp"])
def test_bilevel(tmp_path: Path, name: str) -> None:
    bilevel = PICTURE.convert("1")
    bilevel.save(tmp_path / name, **({"compression": "tiff_lzw"} if name == "lzw.tiff" else {}))
    check(tmp_path / name, np.asarray(bilevel.convert("RGB")))


def test_cmyk_of_tiff(tmp_path: Path) -> None:
    converted = PICTURE.convert("CMYK")
    converted.save(tmp_path / "a.tiff")
    check(tmp_path / "a.tiff", np.asarray(converted.convert("RGB")))


def test_lab(tmp_path: Path) -> None:
    from skimage import color

    muted = PIXELS // 2 + 64
    lab = color.rgb2lab(muted)
    stored = np.dstack([lab[:, :, :1] * 2.55, lab[:, :, 1:]]).round().astype(np.int16).astype(np.uint8)  # a and b have signs
    (tmp_path / "a.tiff").write_bytes(tiff_of({258: 8, 262: 8, 277: 3}, stored.tobytes()))
    # The white of daylight is adapted in another way there, and 8 bits are few.
    check(tmp_path / "a.tiff", muted, within=25)


@pytest.mark.parametrize(("bits", "photometric"), [(16, 1), (16, 0), (12, 1)])
def test_deep_grey_of_tiff(tmp_path: Path, bits: int, photometric: int) -> None:
    top = 2**bits - 1
    levels = np.round(np.asarray(GREY) / 255 * top).astype(np.uint16)
    stored = levels if photometric else top - levels
    packed = stored.astype("<u2").tobytes() if bits == 16 else _packed_in_12_bits(stored)
    (tmp_path / "a.tiff").write_bytes(tiff_of({258: bits, 262: photometric}, packed))
    check(tmp_path / "a.tiff", grey_as_rgb())


def _packed_in_12_bits(values: NDArray[np.uint16]) -> bytes:
    bits = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(*values.shape, 2), axis=2)[:, :, 4:]
    return np.packbits(bits.reshape(len(values), -1), axis=1).tobytes()


def tiff_of(tags: dict[int, int], data: bytes, *, width: int = WIDTH, height: int = HEIGHT, following: int = 0) -> bytes:
    """A little-endian TIFF with one directory and one strip."""
    known = {256: width, 257: height, 259: 1, 273: 8, 277: 1, 278: height, 279: len(data), **tags}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in sorted(known.items()))
    data += bytes(len(data) % 2)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(known)) + entries + struct.pack("<I", following)


@pytest.mark.parametrize(("bits", "dtype", "form"), [(32, "<u4", 1), (32, "<i4", 2), (16, "<i2", 2)])
def test_integers_of_many_bits(tmp_path: Path, bits: int, dtype: str, form: int) -> None:
    top = np.iinfo(dtype).max
    levels = np.round(np.asarray(GREY).astype(np.float64) / 255 * top).astype(dtype)
    (tmp_path / "a.tiff").write_bytes(tiff_of({258: bits, 262: 1, 339: form}, levels.tobytes()))
    check(tmp_path / "a.tiff", grey_as_rgb(), within=1)


@pytest.mark.parametrize("top", [255, 65_535])
def test_integers_with_small_values(tmp_path: Path, top: int) -> None:
    levels = np.asarray(GREY).astype(np.int32) * (top // 255)
    levels[0, 0] = top
    Image.fromarray(levels).save(tmp_path / "a.tiff")
    expected = grey_as_rgb()
    expected[0, 0] = 255
    check(tmp_path / "a.tiff", expected)


@pytest.mark.parametrize("top", [1.0, 255.0, 65_535.0, 1e6])
@pytest.mark.parametrize("name", ["a.tiff", "deflated.tiff"])
def test_floats(tmp_path: Path, top: float, name: str) -> None:
    levels = (np.asarray(GREY) / 255 * top).astype(np.float32)
    levels[0, :3] = top, np.nan, -np.inf
    Image.fromarray(levels).save(tmp_path / name, **({"compression": "tiff_adobe_deflate"} if name == "deflated.tiff" else {}))
    expected = grey_as_rgb()
    expected[0, :3] = [[255], [0], [0]]
    check(tmp_path / name, expected, within=1)


def test_light_brighter_than_white_is_clipped(tmp_path: Path) -> None:
    levels = (np.asarray(GREY) / 255).astype(np.float32)
    levels[0, 0] = 1.7
    Image.fromarray(levels).save(tmp_path / "a.tiff")
    expected = grey_as_rgb()
    expected[0, 0] = 255
    check(tmp_path / "a.tiff", expected, within=1)


@pytest.mark.parametrize("orientation", [1, 6])
def test_colour_floats_are_read_by_opencv(tmp_path: Path, orientation: int) -> None:
    import tifffile

    stored = np.ascontiguousarray(STORED[orientation](PIXELS)).astype(np.float32) / 255
    tifffile.imwrite(tmp_path / "a.tiff", stored, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    check(tmp_path / "a.tiff", PIXELS)


def test_16_bits_of_pgm(tmp_path: Path) -> None:
    levels = (np.asarray(GREY).astype(">u2") * 257).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + levels.tobytes())
    check(tmp_path / "a.pgm", grey_as_rgb())


def test_premultiplied_alpha(tmp_path: Path) -> None:
    """TIFF 6.0, ExtraSamples 1: associated alpha."""
    alpha = np.where(ALPHA > 20, ALPHA, 255).astype(np.uint8)
    share = alpha[:, :, None] / 255
    stored = np.dstack([np.round(PIXELS * share), alpha]).astype(np.uint8)
    associated = tiff_of({258: 8, 262: 2, 277: 4, 338: 1}, stored.tobytes())
    (tmp_path / "a.tiff").write_bytes(associated)
    check(tmp_path / "a.tiff", on_white(PIXELS, alpha), within=1)
    mixed = to_rgb(Image.fromarray(np.dstack([PIXELS, alpha]), "RGBA").convert("RGBa"))
    assert np.abs(mixed.astype(int) - on_white(PIXELS, alpha)).max() <= 1


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB"])
def test_a_transparent_colour_of_png(tmp_path: Path, mode: str) -> None:
    """PNG may declare one colour transparent (tRNS), without an alpha channel."""
    pixels, named = (PIXELS, tuple(map(int, PIXELS[5, 7]))) if mode == "RGB" else (np.asarray(GREY), int(np.asarray(GREY)[5, 7]))
    picture = Image.fromarray(pixels)
    if mode == "I;16":
        picture, named = Image.fromarray(pixels.astype(np.uint16) * 257), named * 257
    picture.save(tmp_path / "a.png", transparency=named)
    colours = PIXELS if mode == "RGB" else grey_as_rgb()
    see_through = (colours == colours[5, 7]).all(axis=2)
    check(tmp_path / "a.png", np.where(see_through[:, :, None], 255, colours).astype(np.uint8))


@pytest.mark.parametrize(
    ("mode", "subsampling", "options"),
    [
        *itertools.product(["RGB", "L", "CMYK", "YCbCr"], [0, 1, 2], [{}, {"progressive": True}, {"restart_marker_blocks": 3}]),
        ("RGB", 0, {"keep_rgb": True}),
    ],
)
def test_jpegs_have_the_pixels_of_pillow(tmp_path: Path, mode: str, subsampling: int, options: dict[str, Any]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (75, 101, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(tmp_path / "a.jpg", quality=80, subsampling=subsampling, **options)
    check(tmp_path / "a.jpg", np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB")))


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("lossless", [False, True])
def test_webps_have_the_pixels_of_pillow(tmp_path: Path, transparent: bool, lossless: bool) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (75, 101, 3), np.uint8))
    if transparent:
        noise.putalpha(Image.linear_gradient("L").resize(noise.size))
    noise.save(tmp_path / "a.webp", lossless=lossless)
    seen = np.asarray(Image.open(tmp_path / "a.webp").convert("RGBA"))
    check(tmp_path / "a.webp", on_white(seen[:, :, :3], seen[:, :, 3]))


# Several pictures in one file


def note_of(path: Path) -> str:
    source = open_source(Medium(path, path.name, path.name, "image"))
    assert len(list(source.frames())) == 1
    return source.report.note


@pytest.mark.parametrize("big", [False, True])
def test_of_a_tiff_with_pages_the_first_is_read_and_the_others_reported(tmp_path: Path, big: bool) -> None:
    path = tmp_path / "scan.tif"
    PICTURE.save(path, save_all=True, append_images=[Image.new("RGB", (9, 9), shade) for shade in ("red", "blue")], big_tiff=big)
    check(path, PIXELS)
    assert note_of(path) == f"only page 1 of 3 was analysed; split them with: tiffsplit {path}"


def test_smaller_copies_in_a_tiff_are_no_pages(tmp_path: Path) -> None:
    first = tiff_of({258: 8, 262: 1}, np.asarray(GREY).tobytes())
    at = len(first)
    small = tiff_of({254: 1, 258: 8, 262: 1}, bytes(4), width=2, height=2)[8:]  # none of its offsets is read
    (tmp_path / "a.tiff").write_bytes(first[:-4] + struct.pack("<I", at + 4) + small)
    check(tmp_path / "a.tiff", grey_as_rgb())
    assert not note_of(tmp_path / "a.tiff")


def test_cyclic_tiff_directories_end(tmp_path: Path) -> None:
    content = tiff_of({258: 8, 262: 1}, np.asarray(GREY).tobytes())
    at = struct.unpack("<I", content[4:8])[0]
    (tmp_path / "a.tiff").write_bytes(content[:-4] + struct.pack("<I", at))
    check(tmp_path / "a.tiff", grey_as_rgb())


def test_of_an_mpo_the_first_picture_is_read(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "a.mpo", format="MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))], quality=98, subsampling=0)
    check(tmp_path / "a.mpo", PIXELS, within=12)
    assert not note_of(tmp_path / "a.mpo")


# Damage


NOISE = np.random.default_rng(2).integers(0, 255, (150, 200, 3), np.uint8)


@pytest.mark.parametrize("name", ["a.jpg", "progressive.jpg", "a.png", "a.bmp", "a.tiff", "a.gif", "a.ppm"])
@pytest.mark.parametrize("kept", [0.3, 0.95])
def test_truncated_pictures_are_read_up_to_their_end(tmp_path: Path, name: str, kept: float, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    options = {"progressive": True} if name == "progressive.jpg" else {"interlace": False} if name == "a.gif" else {}
    path.write_bytes(_tiff_with_directory_first() if name == "a.tiff" else saved(Image.fromarray(NOISE), name, **options))
    whole, content = read_picture(path), path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    seen = read_picture(path)
    assert seen.shape == whole.shape
    if name == "a.bmp":  # stored from below
        seen, whole = seen[::-1], whole[::-1]
    if name != "progressive.jpg":
        rows = int(len(whole) * (kept - 0.2))
        np.testing.assert_array_equal(seen[:rows], whole[:rows])
    note = note_of(path)
    assert note.startswith("damaged or cut off (")
    assert note.endswith("; what could be read was analysed")
    assert capfd.readouterr().err == ""
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def _tiff_with_directory_first() -> bytes:
    data = NOISE[:, :, 0].tobytes()
    tags = {256: 200, 257: 150, 258: 8, 259: 1, 262: 1, 273: 8 + 2 + 9 * 12 + 4, 277: 1, 278: 150, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


@pytest.mark.parametrize("name", ["a.webp", "a.avif", "a.heic"])
@pytest.mark.parametrize("kept", [0.1, 0.5])
def test_formats_that_need_complete_files(tmp_path: Path, name: str, kept: float, capfd: pytest.CaptureFixture[str]) -> None:
    content = heic_of(HEIC_PIXELS) if name == "a.heic" else saved(Image.fromarray(NOISE), name)
    (tmp_path / name).write_bytes(content[: int(len(content) * kept)])
    refused = refusal(tmp_path / name)
    assert refused.kind == "damaged"
    assert str(refused).startswith(f"{tmp_path / name} is a damaged picture, or none (")
    assert str(refused).endswith("); copy it again, or open it in a viewer and save it as PNG")
    assert capfd.readouterr().err == ""


def saved(picture: Image.Image, name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, Path(name).suffix[1:].replace("jpg", "jpeg"), **options)
    return file.getvalue()


def test_a_picture_of_which_nothing_is_left_is_damaged(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "a.bmp"):
        content = saved(Image.fromarray(NOISE).resize((400, 600)), name)
        start = content.index(b"\xff\xda") + 14 if name == "a.jpg" else content.index(b"IDAT") + 6 if name == "a.png" else 54
        for end in (b"", b"\xff\xd9"):
            (tmp_path / name).write_bytes(content[:start] + end)
            assert refusal(tmp_path / name).kind == "damaged", name


@pytest.mark.parametrize("at", [0.3, 0.6])
def test_a_jpeg_that_is_broken_inside_says_so(tmp_path: Path, at: float, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(saved(Image.fromarray(NOISE), "a.jpg"))
    place = int(len(content) * at)
    content[place : place + 2] = b"\xff\xd9"  # the mark of its end
    (tmp_path / "a.jpg").write_bytes(content)
    note = note_of(tmp_path / "a.jpg")
    match = re.match(r"damaged or cut off \(Corrupt JPEG data: .*\): about (\d+)% of it is missing", note)
    assert match, note
    assert int(match[1]) == pytest.approx(100 * (1 - at), abs=10)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 2}, {"progressive": True}])
def test_wrong_pixels_of_a_jpeg_are_reported(tmp_path: Path, options: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    """As if a disk returned a wrong sector: what follows is decoded, but to wrong pixels."""
    content = bytearray(saved(Image.fromarray(NOISE), "a.jpg", **options))
    content[len(content) // 2 : len(content) // 2 + 200] = np.random.default_rng(5).integers(0, 255, 200, np.uint8).tobytes()
    (tmp_path / "a.jpg").write_bytes(content)
    assert note_of(tmp_path / "a.jpg").startswith("damaged or cut off (")
    assert capfd.readouterr().err == ""


def test_messages_of_libtiff_are_logged_with_the_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    content = bytearray(saved(Image.fromarray(NOISE), "a.tiff", compression="tiff_adobe_deflate"))
    content[len(content) // 2 : len(content) // 2 + 20] = bytes(20)
    (tmp_path / "a.tiff").write_bytes(content)
    with caplog.at_level("INFO", "batchemo"):
        assert refusal(tmp_path / "a.tiff").kind == "damaged"
    assert capfd.readouterr().err == ""
    assert any(str(tmp_path / "a.tiff") in record.getMessage() and "Decod" in record.getMessage() for record in caplog.records)


def test_harmless_faults_of_a_jpeg_are_not_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = saved(Image.fromarray(NOISE), "a.jpg")
    (tmp_path / "a.jpg").write_bytes(content)
    whole = read_picture(tmp_path / "a.jpg")
    tables = content.index(b"\xff\xdb")
    harmless = {
        "fills.jpg": content[:-2] + bytes(16) + content[-2:],
        "fills_in_head.jpg": content[:tables] + b"\1\2\3" + content[tables:],
        "one_more.jpg": content[:-2] + b"\x7f" + content[-2:],
        "no_end.jpg": content[:-2],
        "filled_and_no_end.jpg": content[:-2] + b"\xaa" * 20,
        "more_after_it.jpg": content + bytes(500),
    }
    for name, changed in harmless.items():
        (tmp_path / name).write_bytes(changed)
        np.testing.assert_array_equal(read_picture(tmp_path / name), whole)
        assert not note_of(tmp_path / name), name
    assert capfd.readouterr().err == ""


# Kinds that are not read here


def test_a_jpeg_of_12_bits_is_not_called_damaged(tmp_path: Path) -> None:
    content = saved(PICTURE, "a.jpg")
    at = content.index(b"\xff\xc0") + 4
    (tmp_path / "a.jpg").write_bytes(content[:at] + b"\x0c" + content[at + 1 :])
    refused = refusal(tmp_path / "a.jpg")
    assert refused.kind == "unsupported"
    assert "(a JPEG with 12 bits per channel); convert it first, for example with: magick " in str(refused)


def test_a_strange_tiff_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.tiff").write_bytes(tiff_of({258: 7, 262: 9, 277: 3}, bytes(WIDTH * HEIGHT * 3)))
    assert refusal(tmp_path / "a.tiff").kind == "unsupported"


@pytest.mark.parametrize(
    ("name", "content", "kind", "tool"),
    [
        ("a.jxl", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(9), "JPEG XL", "djxl"),
        ("lying.jpg", b"\xff\x0a" + bytes(9), "JPEG XL", "djxl"),
        ("a.jxl", b"anything else", "JPEG XL", "djxl"),
        ("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(9), "JPEG 2000", "opj_decompress"),
        ("a.psd", b"8BPS\0\1" + bytes(20), "Photoshop picture", "magick"),
        ("a.cr3", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "raw photograph", "darktable-cli"),
        ("a.tif", tiff_of({254: 1, 258: 8, 262: 1}, bytes(WIDTH * HEIGHT)), "raw photograph", "darktable-cli"),
        ("a.nef", tiff_of({258: 8, 262: 1}, bytes(WIDTH * HEIGHT)), "raw photograph", "darktable-cli"),
    ],
)
def test_unsupported_pictures_name_their_format_and_a_command(tmp_path: Path, name: str, content: bytes, kind: str, tool: str) -> None:
    (tmp_path / name).write_bytes(content)
    refused = refusal(tmp_path / name)
    assert refused.kind == "unsupported"
    assert str(refused).startswith(f"{tmp_path / name} cannot be read here ({kind}); convert it first, for example with: {tool} ")


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


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int) -> bytes:
    """A small file with a huge black picture."""

    squeezer = zlib.compressobj(9)
    row = bytes(width // 8 + 2)
    rows = b"".join(squeezer.compress(row) for _ in range(height)) + squeezer.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
        + png_chunk(b"IDAT", rows)
        + png_chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(30_000, 30_000), (20_000, 10_001)])
def test_huge_pictures_are_refused_undecoded(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "a.png").write_bytes(png_of(*size))
    started = time.process_time()
    assert refusal(tmp_path / "a.png").kind == "too_large"
    assert time.process_time() - started < 0.5


def test_a_picture_is_decoded_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Image.Image] = []

    def decode(opened: Image.Image) -> NDArray[np.uint8]:
        decoded.append(opened)
        return to_rgb(opened)

    monkeypatch.setattr(picture, "to_rgb", decode)
    path = tmp_path / "a.png"
    PICTURE.save(path)
    first = read_picture(path)
    assert read_picture(path) is first
    assert not first.flags.writeable
    PICTURE.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path, compress_level=0)
    np.testing.assert_array_equal(read_picture(path), PIXELS[:, ::-1])
    assert len(decoded) == 2


def test_several_pictures_stay_in_memory_as_long_as_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "_CACHE_BYTES", 2 * PIXELS.nbytes)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        PICTURE.save(path)
    first, second = map(read_picture, paths[:2])
    assert read_picture(paths[0]) is first
    read_picture(paths[2])
    assert read_picture(paths[0]) is first
    assert read_picture(paths[1]) is not second


def test_a_large_picture_does_not_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "_CACHE_BYTES", PIXELS.nbytes - 1)
    path = tmp_path / "a.png"
    PICTURE.save(path)
    assert read_picture(path) is not read_picture(path)
