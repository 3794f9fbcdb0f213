"""Kinds of media from bug reports of other tools, each as simple as possible."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from batchemo.media.decode import pictures_at
from batchemo.records import Medium
from checks.corpus.clips import AXES, Recipe, make, upright
from checks.corpus.compare import differences, in_segments, mean_difference, shown_by
from checks.corpus.drawn import MATRICES, Orientation, read
from checks.corpus.patches import Edit, Matroska, Movie
from checks.corpus.truth import ask_ffmpeg

pytestmark = pytest.mark.needs("ffmpeg")

_HOMES = {
    "vp8": "webm",
    "vp9": "webm",
    "av1": "mkv",
    "mpeg2": "ts",
    "mpeg2_fields": "mkv",
    "mpeg4_packed": "avi",
    "h264_fields": "ts",
    "prores": "mov",
    "mjpeg": "avi",
}
_TURNS: list[Orientation] = [turn for turn in MATRICES if turn != "upright"]
KINDS = [
    *(Recipe(codec, _HOMES.get(codec, "mp4"), colours="bt601_full" if codec == "mjpeg" else "bt601") for codec in AXES["codec"]),
    *(Recipe(turn=turn) for turn in _TURNS),
    *(Recipe(container=container, turn="transpose") for container in ("mov", "fmp4", "mkv", "ts")),
    *(Recipe(aspect=aspect) for aspect in AXES["aspect"][1:]),
    *(Recipe(codec, container, aspect="4:3") for codec, container in (("vp9", "webm"), ("mpeg2", "mpg"), ("mpeg4", "avi"))),
    *(Recipe(container=container, crop="container") for container in ("mp4", "mkv")),
    *(Recipe(codec, edits=edits) for edits in AXES["edits"][1:] for codec in ("h264", "h264_no_b", "h264_refresh", "hevc_open")),
    Recipe("h264_mbaff", aspect="1:2"),
    *(Recipe(container=container, tracks=tracks) for tracks in AXES["tracks"][1:-1] for container in ("mp4", "mkv")),
    Recipe(tracks="cover_first"),
    Recipe(container="ts", tracks="first_of_two"),
    *(Recipe(colours=colours) for colours in AXES["colours"][1:-2]),
    *(Recipe("hevc", colours=colours) for colours in ("pq", "hlg")),
    *(Recipe(codec, container, change=change) for change in ("turned", "larger") for codec, container in (("vp8", "webm"), ("h264", "ts"))),
    Recipe(container="mkv", rate="variable"),
    Recipe(container="ts", rate="film"),
]


@pytest.mark.parametrize("recipe", KINDS, ids=str)
def test_each_kind_alone(recipe: Recipe, tmp_path: Path) -> None:
    path = make(recipe, tmp_path)
    assert differences(recipe, path, ask_ffmpeg(recipe, path)) == []


@pytest.mark.parametrize(("codec", "container"), [("hevc_open", "mp4"), ("mpeg2", "mkv"), ("h264_open", "mkv"), ("h264_refresh", "mp4")])
def test_sampled_frames_of_long_groups_are_those_of_their_times(codec: str, container: str, tmp_path: Path) -> None:
    path = make(Recipe(codec, container, frames=60), tmp_path)
    shown = shown_by(path, "auto", sample_fps=3)
    assert [read(picture).number - 100 for picture in shown.pictures] == [0, 9, 17, 25, 34, 42, 50, 59]
    assert shown.times == pytest.approx([index / 25 for index in (0, 9, 17, 25, 34, 42, 50, 59)])


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
def test_all_frames_of_an_intra_refresh_are_there_in_segments_as_well(container: str, tmp_path: Path) -> None:
    path = make(Recipe("h264_refresh", container, frames=500), tmp_path)
    whole = shown_by(path, "pyav")
    assert (whole.indices, whole.undecodable, whole.missing) == (list(range(500)), 0, 0)
    assert [read(picture).number for picture in whole.pictures[::10]] == list(range(100, 600, 10))
    assert in_segments(path, "pyav", whole) == []


def test_a_tag_with_a_wrong_duration_is_harmless(tmp_path: Path) -> None:
    recipe = Recipe(container="mkv")
    path = make(recipe, tmp_path)
    matroska = Matroska(path)
    matroska.set_duration_tags("00:01:30.000000000")
    matroska.write()
    assert differences(recipe, path, ask_ffmpeg(recipe, path)) == []


def test_what_an_edit_cuts_out_between_key_frames_takes_no_time(tmp_path: Path) -> None:
    """As from a phone or LosslessCut: ten frames, the next ten cut out, ten more."""
    path = make(Recipe(frames=60), tmp_path)
    movie = Movie(path)
    of_movie, of_track = movie.timescales()
    begins = movie.edits()[0].media_time
    lasts, frame = round(Fraction(10, 25) * of_movie), of_track // 25
    movie.set_edits([Edit(lasts, begins), Edit(lasts, begins + 20 * frame)])
    movie.write()
    shown = shown_by(path, "auto")
    assert [read(picture).number - 100 for picture in shown.pictures] == [*range(10), *range(20, 30)]
    assert shown.times == pytest.approx([index / 25 for index in range(20)])


@pytest.mark.parametrize("codec", ["h264", "hevc_open"])
@pytest.mark.parametrize("pieces", [((6, 20), (31, 59)), ((9, 16), (17, 56)), ((23, 25), (26, 45)), ((40, 52), (2, 15), (33, 34))], ids=str)
def test_edits_that_start_within_groups_of_pictures(codec: str, pieces: Sequence[tuple[int, int]], tmp_path: Path) -> None:
    path = make(Recipe(codec, frames=60), tmp_path)
    movie = Movie(path)
    of_movie, of_track = movie.timescales()
    begins = movie.edits()[0].media_time
    ticks = [(start * of_track // 25, (stop - start) * of_movie // 25) for start, stop in pieces]
    movie.set_edits([Edit(lasts, begins + start) for start, lasts in ticks])
    movie.write()
    shown = shown_by(path, "auto")
    assert [read(picture).number - 100 for picture in shown.pictures] == [index for piece in pieces for index in range(*piece)]
    assert shown.times == pytest.approx([index / 25 for index in range(len(shown.times))])
    assert (shown.undecodable, shown.missing) == (0, 0)
    medium = Medium(path, path.name, path.name, "video")
    for (_, again), picture in zip(pictures_at(medium, shown.times), shown.pictures, strict=True):
        assert np.array_equal(again, picture)


def test_edits_of_truncated_files_have_missing_frames(tmp_path: Path) -> None:
    path = make(Recipe(frames=60), tmp_path)
    movie = Movie(path)
    of_movie, of_track = movie.timescales()
    begins = movie.edits()[0].media_time
    movie.set_edits([Edit(of_movie * 2 // 5, begins + of_track * second) for second in (0, 1, 2)])
    movie.put_header_first()
    movie.write()
    with av.open(str(path)) as opened:
        places = sorted(packet.pos for packet in opened.demux(video=0) if packet.pos is not None)
    path.write_bytes(path.read_bytes()[: places[len(places) // 2]])
    shown = shown_by(path, "pyav")
    assert len(shown.times) >= 10
    assert len(shown.times) + shown.undecodable + shown.missing == 30
    assert shown.missing >= 10


@pytest.mark.parametrize("colours", ["pq", "hlg"])
def test_tone_mapped_hdr_looks_like_the_sdr_original(colours: str, tmp_path: Path) -> None:
    recipe = Recipe("hevc", colours=colours)
    shown = shown_by(make(recipe, tmp_path), "auto").pictures[0]
    drawn = upright(dataclasses.replace(recipe, colours="bt601"), 0)
    corners = [np.s_[2:8, 2:8], np.s_[2:8, -8:-2], np.s_[-8:-2, 2:8], np.s_[-8:-2, -8:-2]]
    for corner in corners:
        assert shown[corner].mean((0, 1)) == pytest.approx(drawn[corner].mean((0, 1)), abs=20)
    assert mean_difference(shown, drawn) < 12
