"""Episodes cover the rows of each track without overlap, and flicker makes none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batchemo.episodes import GAP_SECONDS, Episode, find_episodes, smooth
from batchemo.records import EMOTIONS


def rows_of(
    emotions: Sequence[str], times: Sequence[float] | NDArray[Any] | None = None, *, track_id: int = 1, sure: float = 0.88
) -> pd.DataFrame:
    """Faces with these emotions at `times`, by default 25 a second."""
    probabilities = np.full((len(emotions), len(EMOTIONS)), (1 - sure) / 6)
    for row, emotion in enumerate(emotions):
        probabilities[row, EMOTIONS.index(emotion)] = sure
    frame = pd.DataFrame(probabilities, columns=[f"p_{name}" for name in EMOTIONS])
    frame["time_s"] = np.arange(len(emotions)) / 25 if times is None else np.asarray(times, float)
    frame["track_id"] = np.int32(track_id)
    return frame


def told(episodes: Sequence[Episode]) -> list[tuple[str, int]]:
    return [(episode.emotion, episode.n_frames) for episode in episodes]


def test_one_emotion_is_one_episode() -> None:
    (episode,) = find_episodes(rows_of(["happy"] * 50), EMOTIONS)
    assert (episode.emotion, episode.track_id, episode.n_frames, episode.start_s, episode.end_s) == ("happy", 1, 50, 0.0, 1.96)
    assert episode.peak_probability == pytest.approx(0.88)


def test_a_change_of_emotion_begins_an_episode() -> None:
    first, second = find_episodes(rows_of(["neutral"] * 50 + ["surprise"] * 50), EMOTIONS)
    assert told([first, second]) == [("neutral", 50), ("surprise", 50)]
    assert (first.end_s, second.start_s) == (1.96, 2.0)


@pytest.mark.parametrize("frames", [1, 3, 5])
def test_flicker_is_absorbed(frames: int) -> None:
    assert told(find_episodes(rows_of(["sad"] * 30 + ["happy"] * frames + ["sad"] * 30), EMOTIONS)) == [("sad", 60 + frames)]


@pytest.mark.parametrize(("times_s", "lasts"), [(0.2, False), (0.28, False), (0.32, True), (0.6, True)])
def test_what_is_shorter_than_least_seconds_is_absorbed(times_s: float, lasts: bool) -> None:
    """Without smoothing, so that lengths are those of the rows."""
    count = round(times_s * 25)
    rows = rows_of(["sad"] * 30 + ["happy"] * count + ["sad"] * 30)
    expected = [("sad", 30), ("happy", count), ("sad", 30)] if lasts else [("sad", 60 + count)]
    assert told(find_episodes(rows, EMOTIONS, smooth_seconds=0, least_seconds=0.3)) == expected


def test_a_short_beginning_belongs_to_what_follows() -> None:
    assert told(find_episodes(rows_of(["fear"] * 3 + ["happy"] * 40), EMOTIONS, smooth_seconds=0)) == [("happy", 43)]


def test_a_short_end_belongs_to_what_was() -> None:
    assert told(find_episodes(rows_of(["happy"] * 40 + ["fear"] * 3), EMOTIONS, smooth_seconds=0)) == [("happy", 43)]


@pytest.mark.parametrize(("gap_s", "episodes"), [(0.3, 1), (GAP_SECONDS, 1), (GAP_SECONDS + 0.02, 2), (20, 2)])
def test_a_long_time_out_of_view_splits(gap_s: float, episodes: int) -> None:
    times = np.arange(20) / 25
    rows = rows_of(["happy"] * 40, [*times, *(times + times[-1] + gap_s)])
    assert len(find_episodes(rows, EMOTIONS)) == episodes


def test_sparse_samples_are_no_gaps() -> None:
    assert told(find_episodes(rows_of(["happy"] * 20, np.arange(20) * 2.0), EMOTIONS)) == [("happy", 20)]


def test_smoothing_does_not_reach_over_a_gap() -> None:
    rows = rows_of(["happy"] * 10 + ["sad"] * 10, [*(np.arange(10) / 25), *(5 + np.arange(10) / 25)])
    assert [episode.peak_probability for episode in find_episodes(rows, EMOTIONS, smooth_seconds=100)] == pytest.approx([0.88, 0.88])


def test_the_apex_is_where_the_emotion_is_strongest() -> None:
    rows = rows_of(["happy"] * 75)
    strength = 0.6 + 0.3 * np.exp(-(((np.arange(75) - 50) / 10) ** 2))
    rows["p_happy"] = strength
    (episode,) = find_episodes(rows, EMOTIONS)
    assert episode.apex_s == pytest.approx(2.0, abs=0.05)
    assert 0.85 < episode.peak_probability <= strength.max()


def test_a_single_row() -> None:
    (episode,) = find_episodes(rows_of(["angry"], [3.25]), EMOTIONS)
    assert (episode.start_s, episode.apex_s, episode.end_s, episode.n_frames) == (3.25, 3.25, 3.25, 1)


def test_no_rows() -> None:
    assert find_episodes(rows_of([]), EMOTIONS) == []


def test_smooth_is_the_mean_of_its_window() -> None:
    times = np.array([0.0, 0.1, 0.2, 0.9, 1.0])
    values = np.array([[1.0], [2.0], [3.0], [4.0], [10.0]])
    np.testing.assert_allclose(smooth(times, values, 0.2)[:, 0], [1.5, 2.0, 2.5, 7.0, 7.0])
    np.testing.assert_allclose(smooth(times, values, 0)[:, 0], values[:, 0])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.floats(0.001, 1.5), st.sampled_from(EMOTIONS)), min_size=1, max_size=25),
        min_size=1,
        max_size=3,
    )
)
def test_episodes_cover_every_row_once(tracks: list[list[tuple[float, str]]]) -> None:
    tables = [
        rows_of([name for _, name in rows], np.cumsum([step for step, _ in rows]), track_id=number) for number, rows in enumerate(tracks, 1)
    ]
    faces = pd.concat(tables).sort_values("time_s")
    episodes = find_episodes(faces, EMOTIONS)
    assert sum(episode.n_frames for episode in episodes) == len(faces)
    for number, table in enumerate(tables, 1):
        own = [episode for episode in episodes if episode.track_id == number]
        assert own[0].start_s == table["time_s"].min()
        assert own[-1].end_s == table["time_s"].max()
        for episode in own:
            assert episode.start_s <= episode.apex_s <= episode.end_s
            assert 0 < episode.peak_probability <= 1
            assert episode.n_frames == table["time_s"].between(episode.start_s, episode.end_s).sum()
        assert all(one.end_s < other.start_s for one, other in pairwise(own))
