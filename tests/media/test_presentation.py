"""Presented frames are those of a player: compared with the ffmpeg command, and with what is drawn into every frame."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from checks.corpus.clips import Recipe, make, run_ffmpeg, upright
from checks.corpus.compare import against_truth, alone, in_segments, mean_difference, sampled, shown_by
from checks.corpus.drawn import MATRICES, Orientation, UnreadableError, draw, read, show, store
from checks.corpus.pairs import pairwise
from checks.corpus.truth import Truth, ask_ffmpeg
from tests.needs import need

RECIPES = pairwise(1)[:64]
"""Those that cover most pairs of values: four fifths of all."""

needs_ffmpeg = pytest.mark.needs("ffmpeg")


@pytest.fixture(scope="module", params=RECIPES, ids=str)
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, Truth]:
    """With its truth. All tests of a clip follow each other, so that test processes that share this module make each clip once."""
    need("ffmpeg")
    path = make(request.param, tmp_path_factory.mktemp("clip"))
    return request.param, path, ask_ffmpeg(request.param, path)


def test_ffmpeg_shows_what_was_drawn(clip: tuple[Recipe, Path, Truth]) -> None:
    recipe, _, truth = clip
    presented = recipe.presented()
    said = [read(picture) for picture in truth.pictures]
    assert [each.number for each in said] == [number for number, _ in presented]
    assert {each.orientation for each in said} == {"upright"}
    assert {each.track for each in said} == {1}
    assert all(each.aspect == pytest.approx(1, abs=0.02) for each in said)
    for picture, (number, _) in zip(truth.pictures, presented, strict=True):
        assert mean_difference(picture, upright(recipe, number - recipe.first)) < 6
    if recipe.edits == "several":
        return  # after a cut amid reordered frames FFmpeg's times are late by as much as these are reordered
    assert [float(time) for time in truth.times] == pytest.approx([float(time) for _, time in presented], abs=1.1e-3)


@needs_ffmpeg
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_ffmpeg_rotates_them_by_itself(container: str, tmp_path: Path) -> None:
    """The truth rotates by the recipe; here the ffmpeg command reads the rotation from the file."""
    for turn in MATRICES:
        recipe = Recipe(container=container, turn=turn)
        path = make(recipe, tmp_path)
        raw = run_ffmpeg("-i", path, "-frames:v", "1", "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
        width, height = recipe.shown_size
        assert read(np.frombuffer(raw, np.uint8).reshape(height, width, 3)).orientation == "upright", turn


def test_frames_are_those_of_ffmpeg(clip: tuple[Recipe, Path, Truth]) -> None:
    recipe, path, truth = clip
    assert against_truth(recipe, shown_by(path, "pyav"), truth) == []


def test_the_chosen_decoder_gives_the_same_frames(clip: tuple[Recipe, Path, Truth]) -> None:
    _, path, _ = clip
    assert alone(shown_by(path, "auto"), shown_by(path, "pyav")) == []


def test_segments_together_are_the_whole(clip: tuple[Recipe, Path, Truth]) -> None:
    _, path, _ = clip
    whole = shown_by(path, "pyav")
    assert [line for decoder in ("pyav", "auto") for line in in_segments(path, decoder, whole)] == []


def test_sampled_frames_are_those_of_their_times(clip: tuple[Recipe, Path, Truth]) -> None:
    _, path, truth = clip
    assert [line for decoder in ("pyav", "auto") for line in sampled(path, decoder, truth)] == []


@pytest.mark.parametrize("turn", list(MATRICES))
@pytest.mark.parametrize("size", [(160, 120), (120, 160), (213, 120), (160, 240)])
def test_test_pictures_state_number_and_orientation(turn: Orientation, size: tuple[int, int]) -> None:
    picture = draw(537, *size, track=2)
    said = read(show(picture, turn))
    assert (said.number, said.track, said.orientation) == (537, 2, turn)
    assert said.aspect == pytest.approx(1, abs=0.01)
    assert (show(store(picture, turn), turn) == picture).all()


def test_squeezed_and_unreadable_test_pictures_are_recognized() -> None:
    assert read(np.asarray(cv2.resize(draw(1, 160, 120), (160, 160)))).aspect == pytest.approx(3 / 4, abs=0.02)
    with pytest.raises(UnreadableError):
        read(np.full((120, 160, 3), 110, np.uint8))
    mixed = (draw(1, 160, 120) // 2 + draw(2, 160, 120) // 2).astype(np.uint8)
    with pytest.raises(UnreadableError):
        read(mixed)
