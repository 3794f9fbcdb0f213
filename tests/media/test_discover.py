"""Discovery on real files and folders."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from batchemo.errors import UsageError
from batchemo.media.discover import SkippedFile, find_media
from batchemo.media.output_names import decode_output_name, output_name
from batchemo.media.sniff import sniff
from batchemo.media.unsupported import UnsupportedFormat
from batchemo.records import Medium
from tests.made_media import shades, write_clip

JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0"
MP4 = b"\0\0\0\x18ftypisom\0\0\2\0isommp41"


def put(folder: Path, *names: str, content: bytes = MP4) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def names(media: list[Medium]) -> list[str]:
    return [medium.name for medium in media]


def find(folder: Path, **options: object) -> list[Medium]:
    return find_media([folder], out=folder.parent / "results", **options)  # type: ignore[arg-type]


@pytest.fixture
def media_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    return folder


@pytest.fixture
def unprivileged_dir() -> Iterator[Path]:
    """A folder for which permissions apply: the test runs as another user if it was started as root."""
    with tempfile.TemporaryDirectory(prefix="batchemo-test-") as name:
        folder = Path(name)
        is_root = os.geteuid() == 0
        if is_root:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        yield folder
        if is_root:
            os.seteuid(0)
        for path in folder.rglob("*"):
            path.chmod(0o700)


# Walking


def test_walks_in_a_fixed_order(media_dir: Path) -> None:
    put(media_dir, "z.mp4", "b/2.mp4", "b/1.mp4", "a/deep/er/x.jpg", "a/x.jpg", "B.mp4")
    assert names(find(media_dir)) == ["B.mp4", "z.mp4", "a/x.jpg", "a/deep/er/x.jpg", "b/1.mp4", "b/2.mp4"]


def test_names_paths_outputs_and_kinds(media_dir: Path) -> None:
    put(media_dir, "day=1/_a b.mp4")
    assert find(media_dir) == [Medium(path=media_dir / "day=1/_a b.mp4", name="day=1/_a b.mp4", output="day%3D1/%5Fa b.mp4", kind="video")]


def test_skips_hidden_files_unless_they_are_inputs(media_dir: Path) -> None:
    put(media_dir, ".secret/a.mp4", "._a.mp4", "a.mp4")
    assert names(find(media_dir)) == ["a.mp4"]
    assert names(find(media_dir / ".secret")) == ["a.mp4"]
    assert names(find(media_dir / "._a.mp4")) == ["._a.mp4"]


def test_follows_links_only_on_request_and_never_in_circles(media_dir: Path, tmp_path: Path) -> None:
    put(media_dir, "sub/a.mp4")
    put(tmp_path, "elsewhere/b.mp4")
    (media_dir / "sub/up").symlink_to(media_dir)
    (media_dir / "sub/up-again").symlink_to("..")  # two such links are 2^40 ways to walk
    (media_dir / "there").symlink_to(tmp_path / "elsewhere")
    (media_dir / "a-link.mp4").symlink_to(media_dir / "sub/a.mp4")
    (media_dir / "round.mp4").symlink_to(media_dir / "round.mp4")
    (media_dir / "gone.mp4").symlink_to(tmp_path / "gone.mp4")
    (media_dir / "gone.txt").symlink_to(tmp_path / "gone.txt")
    assert names(find(media_dir)) == ["sub/a.mp4"]
    assert names(find(media_dir, follow_symlinks=True)) == ["a-link.mp4", "gone.mp4", "round.mp4", "there/b.mp4"]
    assert names(find(media_dir / "there")) == ["b.mp4"]


def test_links_cannot_move_outputs_out_of_the_results(media_dir: Path, tmp_path: Path) -> None:
    put(tmp_path, "secret/a.mp4")
    (media_dir / "up").symlink_to(tmp_path / "secret")
    (media_dir / "..hidden.mp4").symlink_to("/etc/passwd")
    (media_dir / "passwd.mp4").symlink_to("/etc/passwd")
    assert find(media_dir) == []
    for medium in find(media_dir, follow_symlinks=True):
        output = (tmp_path / "results" / f"{medium.output}.parquet").resolve()
        assert output.is_relative_to(tmp_path / "results")
    assert names(find(media_dir, follow_symlinks=True)) == ["passwd.mp4", "up/a.mp4"]


def test_never_reads_its_own_results(media_dir: Path) -> None:
    put(media_dir, "a.mp4", "results/annotated/a.mp4.mp4", "old/annotated/b.mp4", "old/media.parquet", "old/frames/b.parquet")
    put(media_dir, "videos/media.parquet", "videos/frames", content=b"PAR1")
    put(media_dir, "videos/c.mp4")
    (media_dir / "link").symlink_to(media_dir / "results")
    out = media_dir / "videos" / ".." / "results"
    for follow_symlinks in (False, True):
        assert names(find_media([media_dir], out=out, follow_symlinks=follow_symlinks)) == ["a.mp4", "videos/c.mp4"]


def test_refuses_results_folders_as_input(media_dir: Path) -> None:
    put(media_dir, "old/media.parquet", "old/frames/b.parquet")
    with pytest.raises(UsageError, match=r"old is a results folder"):
        find(media_dir / "old")
    with pytest.raises(UsageError, match=r"media is both INPUT and results folder.*--out"):
        find_media([media_dir], out=media_dir / "." / "old" / "..")


def test_a_folder_inside_the_results_folder_can_be_an_input(media_dir: Path) -> None:
    put(media_dir, "videos/a.mp4")
    assert names(find_media([media_dir / "videos"], out=media_dir)) == ["a.mp4"]


def test_lists_a_file_once(media_dir: Path) -> None:
    put(media_dir, "day1/a.mp4", "b.mp4")
    inputs = [media_dir / "day1", media_dir, media_dir / "b.mp4", media_dir / "day1" / "..", media_dir / "day1"]
    assert names(find_media(inputs, out=media_dir / "results")) == ["day1/a.mp4", "media/b.mp4"]


def test_the_same_input_twice_is_one_input(media_dir: Path) -> None:
    put(media_dir, "a.mp4", "sub/b.mp4")
    assert names(find_media([media_dir, media_dir / "sub/.."], out=media_dir / "results")) == ["a.mp4", "sub/b.mp4"]


def test_special_files_are_never_opened(media_dir: Path) -> None:
    put(media_dir, "a.mp4")
    os.mkfifo(media_dir / "pipe.mp4")
    (media_dir / "tty.mp4").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        cwd = Path.cwd()
        os.chdir(media_dir)  # addresses of sockets are short
        server.bind("socket.mp4")
        os.chdir(cwd)
        assert names(find(media_dir, follow_symlinks=True)) == ["a.mp4"]
    assert sniff(media_dir / "pipe.mp4") is None
    with pytest.raises(UsageError, match=r"pipe\.mp4 is neither a file nor a folder"):
        find(media_dir / "pipe.mp4")


def test_a_folder_that_cannot_be_read_costs_nothing_else(unprivileged_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(unprivileged_dir, "media/a.mp4", "media/locked\x1b[2J/b.mp4", "media/c.mp4")
    (unprivileged_dir / "media/locked\x1b[2J").chmod(0)
    with caplog.at_level(logging.WARNING, "batchemo"):
        assert names(find(unprivileged_dir / "media")) == ["a.mp4", "c.mp4"]
    (record,) = caplog.records
    assert "locked\\x1b[2J" in record.getMessage()
    assert "Permission denied" in record.getMessage()


def test_an_unreadable_file_is_a_medium_by_its_extension(unprivileged_dir: Path) -> None:
    put(unprivileged_dir, "media/a.jpg", "media/b.txt", content=JPEG)
    (unprivileged_dir / "media/a.jpg").chmod(0)
    (unprivileged_dir / "media/b.txt").chmod(0)
    assert [(medium.name, medium.kind) for medium in find(unprivileged_dir / "media")] == [("a.jpg", "image")]


def test_an_input_that_cannot_be_listed_is_an_error(unprivileged_dir: Path) -> None:
    put(unprivileged_dir, "media/sub/a.mp4")
    (unprivileged_dir / "media").chmod(0)
    for path in (unprivileged_dir / "media", unprivileged_dir / "media/sub"):
        with pytest.raises(UsageError, match=r"cannot be read \(Permission denied\)"):
            find(path)


@pytest.mark.parametrize("name", ["no such.mp4", "x" * 300, "nul\0.mp4", "gone/a.mp4", "a.mp4/b.mp4"])
def test_inputs_must_exist(media_dir: Path, name: str) -> None:
    put(media_dir, "a.mp4")
    with pytest.raises(UsageError, match=r"does not exist; .* ls '?/|cannot be read"):
        find_media([media_dir, media_dir / name], out=media_dir / "results")


def test_trees_deeper_than_the_stack(media_dir: Path) -> None:
    put(media_dir, "d/" * 200 + "a.mp4")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        media = find(media_dir)
    finally:
        sys.setrecursionlimit(limit)
    assert names(media) == ["d/" * 200 + "a.mp4"]


# Names


def test_several_inputs_put_their_own_name_in_front(tmp_path: Path) -> None:
    files = ("1/videos/a.mp4", "2/videos/a.mp4", "3/videos-2/a.mp4", "4/videos/a.mp4", "7/v1.2/a.jpg", "8/v1.2/a.jpg")
    put(tmp_path, *files, "5/v.mp4", "6/v.mp4")
    folders = [tmp_path / file for file in ("1/videos", "2/videos", "3/videos-2", "4/videos", "7/v1.2", "8/v1.2")]
    inputs = [*folders, tmp_path / "5/v.mp4", tmp_path / "6/v.mp4"]
    media = find_media(inputs, out=tmp_path / "results")
    assert names(media) == [
        *("videos/a.mp4", "videos-3/a.mp4", "videos-2/a.mp4", "videos-4/a.mp4"),
        *("v1.2/a.jpg", "v1.2-2/a.jpg", "v.mp4", "v-2.mp4"),
    ]
    assert len({medium.output for medium in media}) == len(media)


def test_one_input(media_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(media_dir, "sub/a.mp4", "b.mp4")
    assert names(find(media_dir / "b.mp4")) == ["b.mp4"]
    monkeypatch.chdir(media_dir / "sub")
    assert [str(medium.path) for medium in find(Path())] == ["a.mp4"]
    assert names(find(Path(".."))) == ["b.mp4", "sub/a.mp4"]


def test_inputs_without_a_name_of_their_own(media_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(media_dir, "sub/a.mp4", "b.mp4")
    monkeypatch.chdir(media_dir / "sub")
    assert names(find_media([Path(), Path("..")], out=Path("results"))) == ["sub/a.mp4", "media/b.mp4"]


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("two words.mp4", "two words.mp4"),
        ("Köln straße.mp4", "Köln straße.mp4"),
        ("👩‍👧 party.jpg", "👩‍👧 party.jpg"),
        ('it\'s "me".mp4', "it's %22me%22.mp4"),
        ("line\nbreak.mp4", "line%0Abreak.mp4"),
        ("-rf.mp4", "-rf.mp4"),
        ("100%.mp4", "100%25.mp4"),
        ("back\\slash.mp4", "back%5Cslash.mp4"),
        ("day=1/a.mp4", "day%3D1/a.mp4"),
        ("_x/_a.mp4", "%5Fx/%5Fa.mp4"),
        ("dots. /a.mp4", "dots.%20/a.mp4"),
        ("a.mp4.parquet/b.mp4", "a.mp4%2Eparquet/b.mp4"),
        ("a~b.mp4", "a%7Eb.mp4"),
        ("x" * 200 + ".mp4", "x" * 163 + "~43459d16dab8.mp4"),
    ],
)
def test_awkward_names_work(media_dir: Path, name: str, output: str) -> None:
    put(media_dir, name)
    (medium,) = find(media_dir)
    assert (medium.name, medium.output) == (name, output)
    assert medium.path.read_bytes() == MP4
    result = media_dir.parent / "results" / f"{medium.output}.parquet"
    result.parent.mkdir(parents=True)
    result.touch()


def test_names_that_are_not_utf8_become_text(media_dir: Path) -> None:
    for name in (b"caf\xe9.mp4", b"caf\\xe9.mp4"):
        (Path(os.fsdecode(os.fsencode(media_dir) + b"/" + name))).write_bytes(MP4)
    media = find(media_dir)
    assert names(media) == ["caf\\xe9.mp4", "caf\\xe9-2.mp4"]
    assert [medium.output for medium in media] == ["caf%5Cxe9.mp4", "caf%E9.mp4"]
    assert all(medium.path.read_bytes() == MP4 for medium in media)


COMPONENTS = st.binary(min_size=1, max_size=255).filter(lambda raw: b"/" not in raw and b"\0" not in raw)
PIECES = [*"._~%= a\n\\é😀", "%2E", "~0123456789ab", ".mp4", ".parquet", "\udcff", "x" * 90]
TRICKY = st.lists(st.sampled_from(PIECES), min_size=1).map("".join)
RAW_NAMES = st.lists(COMPONENTS.map(os.fsdecode) | TRICKY, min_size=1, max_size=4).map("/".join)


@given(RAW_NAMES)
@example("../..")
@example("./.hidden/_x/...")
@example("é" * 120 + ".mp4")
@example("%" * 100)
@example("😀" * 63)
def test_outputs_are_safe(name: str) -> None:
    output = output_name(name)
    output.encode()
    components = output.split("/")
    assert len(components) == len(name.split("/"))
    for component in components:
        assert 0 < len(component.encode()) <= 180
        assert component[0] not in "._"
        assert component[-1] not in " ."
        assert not set(component) & set('\\<>:"|?*=\0\n\x7f')
    if "~" not in output:
        assert decode_output_name(output) == name
    else:
        with pytest.raises(ValueError, match="was cut"):
            decode_output_name(output)


@given(RAW_NAMES, RAW_NAMES)
@example("%2Ea", ".a")
@example("\udce9", "%E9")
def test_different_names_give_different_outputs(first: str, second: str) -> None:
    assert (output_name(first) == output_name(second)) == (first == second)


FILES = st.lists(
    st.tuples(
        st.integers(0, 2), st.lists(st.sampled_from([".x", "_a", "a", "a-2", "a.mp4", "a~b", "%41", "é", "A"]), min_size=1, max_size=3)
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(FILES)
def test_no_two_media_share_a_name_or_an_output(files: list[tuple[int, list[str]]]) -> None:
    """With three INPUTs, two of which have the same base name."""
    with tempfile.TemporaryDirectory() as name:
        roots = [Path(name, *parts) for parts in (("1", "in"), ("2", "in"), ("3", "in-2"))]
        for root in roots:
            root.mkdir(parents=True)
        for index, parts in files:
            path = roots[index].joinpath(*parts)
            with contextlib.suppress(OSError):  # a file where a folder should be, or the other way round
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_name(f"{path.name}.mp4").write_bytes(MP4)
        media = find_media(roots, out=Path(name, "out"))
        assert len({medium.name for medium in media}) == len({medium.output for medium in media}) == len(media)
        assert [decode_output_name(medium.output) for medium in media] == names(media)


def test_cut_names_stay_apart() -> None:
    long = "é" * 120
    cut = output_name(f"{long}.mp4")
    assert cut.startswith("é" * 70)
    assert cut.endswith(".mp4")
    outputs = {cut, output_name(f"{long}e.mp4"), output_name(f"{long}.jpg"), output_name(cut), output_name(f"{long}.{long}")}
    assert len(outputs) == 5
    assert "%" not in output_name("a" + "é" * 120)
    assert output_name("%" * 100)[:-13] == "%25" * 55


@pytest.mark.parametrize("name", ["", "/a", "a//b", "a/"])
def test_output_names_come_from_relative_paths(name: str) -> None:
    with pytest.raises(ValueError, match="not a relative path"):
        output_name(name)


# Patterns


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.mp4", ["x.mp4", "day1/x.mp4", "day1/cam/y.mp4", "day10/x.mp4"]),
        ("x.mp4", ["x.mp4", "day1/x.mp4", "day10/x.mp4"]),
        ("day1/*", ["day1/x.mp4", "day1/z.jpg", "day1/cam/y.mp4"]),
        ("day1", ["day1/x.mp4", "day1/z.jpg", "day1/cam/y.mp4"]),
        ("day1/", ["day1/x.mp4", "day1/z.jpg", "day1/cam/y.mp4"]),
        ("cam/*", ["day1/cam/y.mp4"]),
        ("**/x.mp4", ["x.mp4", "day1/x.mp4", "day10/x.mp4"]),
        ("day1/**/y.mp4", ["day1/cam/y.mp4"]),
        ("day1/**/x.mp4", ["day1/x.mp4"]),
        ("*/x.mp4", ["day1/x.mp4", "day10/x.mp4"]),
        ("[xz].*", ["x.mp4", "day1/x.mp4", "day1/z.jpg", "day10/x.mp4"]),
        ("*.MP4", []),
        ("ay1/*", []),
        ("", []),
    ],
)
def test_patterns(media_dir: Path, pattern: str, expected: list[str]) -> None:
    put(media_dir, "x.mp4", "day1/x.mp4", "day1/z.jpg", "day1/cam/y.mp4", "day10/x.mp4")
    everything = names(find(media_dir))
    assert names(find(media_dir, include=[pattern])) == expected
    assert names(find(media_dir, exclude=[pattern])) == [name for name in everything if name not in expected]


def test_exclude_wins_and_several_patterns_add_up(media_dir: Path) -> None:
    put(media_dir, "a.mp4", "b.jpg", "c.mov", "d.mp4")
    assert names(find(media_dir, include=["*.mp4", "*.jpg"], exclude=["a.*", "nothing"])) == ["b.jpg", "d.mp4"]


def test_patterns_see_the_name_of_the_input(tmp_path: Path) -> None:
    put(tmp_path, "one/a.mp4", "two/a.mp4")
    media = find_media([tmp_path / "one", tmp_path / "two"], out=tmp_path / "results", exclude=["one/*"])
    assert names(media) == ["two/a.mp4"]


# Kinds


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        *(("mp4", "mpeg4"), ("mov", "mpeg4"), ("3gp", "mpeg4"), ("matroska", "mpeg4"), ("webm", "libvpx"), ("avi", "mpeg4")),
        *(("mpegts", "mpeg2video"), ("mpeg", "mpeg1video"), ("vob", "mpeg2video"), ("mpeg1video", "mpeg1video"), ("flv", "flv")),
        *(("asf", "wmv2"), ("mxf", "mpeg2video"), ("ivf", "libvpx"), ("yuv4mpegpipe", "rawvideo"), ("ogg", "libvpx")),
    ],
)
def test_recognises_videos(media_dir: Path, container: str, codec: str) -> None:
    path = media_dir / "lying.jpg"
    write_clip(path, shades(3, (64, 48), step=80), container=container, codec=codec)
    assert sniff(path) == "video"
    assert [medium.kind for medium in find(media_dir)] == ["video"]


def test_recognises_m2ts(media_dir: Path) -> None:
    write_clip(media_dir / "a.ts", shades(3, (64, 48), step=80), container="mpegts", codec="mpeg2video")
    packets = (media_dir / "a.ts").read_bytes()
    (media_dir / "b.mts").write_bytes(b"".join(b"\0\0\0\0" + packets[start : start + 188] for start in range(0, len(packets), 188)))
    assert names(find(media_dir)) == ["a.ts", "b.mts"]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_recognises_pictures(media_dir: Path, form: str) -> None:
    path = media_dir / "lying.mp4"
    Image.new("RGB", (20, 10), (200, 10, 10)).save(path, format=form)
    assert sniff(path) == "image"
    assert [medium.kind for medium in find(media_dir)] == ["image"]


def test_recognises_big_endian_tiff_and_heic(media_dir: Path) -> None:
    put(media_dir, "a", content=b"MM\0*\0\0\0\x08")
    put(media_dir, "b", content=b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert [medium.kind for medium in find(media_dir)] == ["image", "image"]


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("mode", ["P", "RGB"])
def test_a_gif_that_moves_is_a_video(tmp_path: Path, count: int, mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (count, 90, 90, 3), np.uint8)
    first, *others = [Image.fromarray(pixels).convert(mode) for pixels in noise]
    path = tmp_path / "a.gif"
    first.save(path, save_all=True, append_images=others, loop=0, comment=b"x" * 700)
    assert sniff(path) == ("video" if count > 1 else "image")
    content = path.read_bytes()
    for end in range(6, len(content), len(content) // 60):
        path.write_bytes(content[:end])
        assert sniff(path) in ("image", "video")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ((8).to_bytes(4, "big") + b"wide" + bytes(8), "video"),
        ((20).to_bytes(4, "big") + b"moov" + bytes(12), "video"),
        ((0).to_bytes(4, "big") + b"mdat" + bytes(8), "video"),
        ((1).to_bytes(4, "big") + b"mdat" + bytes(8), "video"),
        (b"The free world: an essay", None),
        (b"BM25 is a ranking function used by search engines", None),
        (b"G" + b"ood advice " * 100, None),
        (b"RIFF\x24\0\0\0WAVEfmt ", None),
        (b"\0\0\0\x18ftypM4A \0\0\0\0", None),
        (b"OggS\0\2" + bytes(22) + b"\x01vorbis", None),
        (b"OggS\0\2" + bytes(22) + b"\x80theora", "video"),
        (b"ID3\x04\0", None),
        (b"\xff\xd8", None),
        (b"G", None),
        (b"", None),
    ],
)
def test_judges_by_content(tmp_path: Path, content: bytes, expected: str | None) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(content)
    assert sniff(path) == expected
    assert [medium.kind for medium in find(tmp_path)] == [kind for kind in (expected,) if kind]


FOREIGN = [
    ("photo.jxl", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(9), "JPEG XL"),
    ("bare.jxl", b"\xff\x0a" + bytes(9), "JPEG XL"),
    ("lying.jpg", b"\xff\x0a" + bytes(9), "JPEG XL"),
    ("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(9), "JPEG 2000"),
    ("a.j2k", b"\xff\x4f\xff\x51" + bytes(9), "JPEG 2000"),
    ("a.jxr", b"II\xbc\x01" + bytes(9), "JPEG XR"),
    ("a.psd", b"8BPS\0\1" + bytes(9), "Photoshop picture"),
    ("a.xcf", b"gimp xcf v011" + bytes(9), "GIMP picture"),
    ("a.exr", b"v/1\x01" + bytes(9), "OpenEXR"),
    ("a.hdr", b"#?RADIANCE\n" + bytes(9), "Radiance HDR"),
    ("a.dcm", bytes(128) + b"DICM", "DICOM"),
    ("a.cr3", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "raw photograph"),
    ("a.cr2", b"II*\0\x10\0\0\0CR\2\0" + bytes(9), "raw photograph"),
    ("cr2.tif", b"II*\0\x10\0\0\0CR\2\0" + bytes(9), "raw photograph"),
    ("a.orf", b"IIRO\x08\0\0\0", "raw photograph"),
    ("a.rw2", b"IIU\0\x08\0\0\0", "raw photograph"),
    ("a.raf", b"FUJIFILMCCD-RAW 0201", "raw photograph"),
    ("a.nef", b"MM\0*\0\0\0\x08", "raw photograph"),
    ("dng.tif", b"II*\0\x08\0\0\0\1\0" + (50706).to_bytes(2, "little") + b"\1\0\4\0\0\0\1\4\0\0" + bytes(4), "raw photograph"),
    ("thumbnail.tif", b"II*\0\x08\0\0\0\1\0\xfe\0\4\0\1\0\0\0\1\0\0\0" + bytes(4), "raw photograph"),
    ("unknown.arw", b"unknown", "raw photograph"),
    ("unknown.tga", b"unknown", "Targa"),
]


@pytest.mark.parametrize(("name", "content", "kind"), FOREIGN)
def test_unsupported_pictures_are_skipped_and_reported(media_dir: Path, name: str, content: bytes, kind: str) -> None:
    put(media_dir, "a.mp4")
    put(media_dir, f"sub/{name}", content=content)
    skipped: list[SkippedFile] = []
    assert names(find(media_dir, passed_over=skipped)) == ["a.mp4"]
    assert [(each.path, each.name, each.format.kind) for each in skipped] == [(media_dir / "sub" / name, f"sub/{name}", kind)]
    assert sniff(media_dir / "sub" / name) in (UnsupportedFormat(kind), None)
    skipped.clear()
    (medium,) = find(media_dir / "sub" / name, passed_over=skipped)
    assert (medium.kind, skipped) == ("image", [])


def test_skipped_pictures_respect_patterns_and_are_reported_once(media_dir: Path) -> None:
    put(media_dir, "a.jxl", "b.jxl", "sub/c.jxl", content=b"\xff\x0a")
    skipped: list[SkippedFile] = []
    find_media([media_dir, media_dir / "sub"], out=media_dir / "results", exclude=["b.*"], passed_over=skipped)
    assert [each.name for each in skipped] == ["media/a.jxl", "media/sub/c.jxl"]


@pytest.mark.parametrize("name", ["plain.cr2", "plain.jxl"])
def test_a_picture_is_what_it_holds_whatever_it_is_called(media_dir: Path, name: str) -> None:
    Image.new("RGB", (20, 10)).save(media_dir / name, format="JPEG")
    assert [medium.kind for medium in find(media_dir)] == ["image"]


def test_unknown_content_goes_by_its_extension(media_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(media_dir, "empty.mp4", "empty.txt", "empty.ts", "README", content=b"")
    put(media_dir, "renamed.MOV", "notes.md", "face.pgm", "types.d.ts", content=b"just words\n" * 50)
    with caplog.at_level(logging.DEBUG, "batchemo"):
        found = {medium.name: medium.kind for medium in find(media_dir)}
    assert found == {"empty.mp4": "video", "renamed.MOV": "video", "face.pgm": "image"}
    assert sorted(Path(record.getMessage().split(": ")[0]).name for record in caplog.records) == [
        *("README", "empty.ts", "empty.txt", "notes.md", "types.d.ts")
    ]


def test_audio_in_a_video_container_is_skipped(media_dir: Path) -> None:
    put(media_dir, "song.m4a", "song.MKA", "clip.mp4")
    assert names(find(media_dir)) == ["clip.mp4"]


@pytest.mark.parametrize("name", ["song.m4a", "notes.txt", "types.ts", "noextension"])
def test_a_file_given_as_input_always_is_a_medium(media_dir: Path, name: str) -> None:
    put(media_dir, name, content=b"whatever")
    (medium,) = find(media_dir / name)
    assert (medium.name, medium.kind) == (name, "video")


def test_imports_no_heavy_library() -> None:
    script = "import sys, batchemo.media.discover; print([name for name in ('torch', 'cv2', 'av', 'PIL', 'pandas') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
