"""Episodes have the right onset, apex and offset; flicker and low probabilities make none."""

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

import batchemo
from batchemo.analysis.dataframes import tracks_in
from batchemo.errors import UsageError
from batchemo.records import EMOTIONS
from batchemo.results import episodes as module
from batchemo.results.episodes import GAP_SECONDS, Episode, EpisodeFinder, EpisodeRules
from batchemo.results.schema import EPISODES

UNSMOOTHED = EpisodeRules(smooth_seconds=0)


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


def curve_of(happy: Sequence[float] | NDArray[Any], hz: float = 25) -> pd.DataFrame:
    """Faces that are happy with these probabilities, neutral for a half of the rest, and the other emotions for the other half."""
    frame = rows_of(["happy"] * len(happy), np.arange(len(happy)) / hz)
    rest = {f"p_{name}": (1 - np.asarray(happy)) / 10 for name in EMOTIONS}
    return frame.assign(**rest | {"p_happy": happy, "p_neutral": (1 - np.asarray(happy)) / 2})


def find_episodes(
    faces: pd.DataFrame, labels: Sequence[str] = EMOTIONS, rules: EpisodeRules | None = None, *, pieces: int = 1
) -> list[Episode]:
    """Feeds the rows of each track in this many pieces."""
    found: list[Episode] = []
    for number, (_, rows) in enumerate(tracks_in(faces, ["track_id"]), 1):
        times = faces["time_s"].to_numpy(np.float64)[rows]
        values = faces[[f"p_{label}" for label in labels]].to_numpy(np.float64)[rows]
        step_s = float(np.median(np.diff(times))) if len(times) > 1 else np.inf
        finder = EpisodeFinder(number, labels, rules or EpisodeRules(), step_s=step_s)
        for part in np.array_split(np.arange(len(times)), pieces):
            found += finder.add(times[part], values[part])
            if len(part) and part[-1] + 1 < len(times) and finder.is_over(times[part[-1] + 1]):
                found += finder.close()
        found += finder.close()
    return found


def labels_and_counts(episodes: Sequence[Episode]) -> list[tuple[str, int]]:
    return [(episode.emotion, episode.n_frames) for episode in episodes]


def test_one_emotion_is_one_episode() -> None:
    (episode,) = find_episodes(rows_of(["happy"] * 50), EMOTIONS)
    assert (episode.emotion, episode.track_id, episode.n_frames, episode.start_s, episode.end_s) == ("happy", 1, 50, 0.0, 1.96)
    assert episode.peak_probability == pytest.approx(0.88)


def test_a_change_of_emotion_begins_an_episode() -> None:
    first, second = find_episodes(rows_of(["neutral"] * 50 + ["surprise"] * 50), EMOTIONS, UNSMOOTHED)
    assert labels_and_counts([first, second]) == [("neutral", 50), ("surprise", 50)]
    assert (first.end_s, second.start_s) == (1.96, 2.0)


@pytest.mark.parametrize("frames", [1, 3, 5])
def test_flicker_is_absorbed(frames: int) -> None:
    assert labels_and_counts(find_episodes(rows_of(["sad"] * 30 + ["happy"] * frames + ["sad"] * 30), EMOTIONS)) == [("sad", 60 + frames)]


@pytest.mark.parametrize(("times_s", "lasts"), [(0.2, False), (0.28, False), (0.32, True), (0.6, True)])
def test_what_is_shorter_than_least_seconds_is_absorbed(times_s: float, lasts: bool) -> None:
    count = round(times_s * 25)
    rows = rows_of(["sad"] * 30 + ["happy"] * count + ["sad"] * 30)
    expected = [("sad", 30), ("happy", count), ("sad", 30)] if lasts else [("sad", 60 + count)]
    assert labels_and_counts(find_episodes(rows, EMOTIONS, UNSMOOTHED)) == expected


def test_what_is_too_short_for_an_episode_is_in_none() -> None:
    assert labels_and_counts(find_episodes(rows_of(["fear"] * 3 + ["happy"] * 40 + ["sad"] * 5), EMOTIONS, UNSMOOTHED)) == [("happy", 40)]
    assert find_episodes(rows_of(["fear"] * 5), EMOTIONS, UNSMOOTHED) == []


def test_doubt_is_in_no_episode() -> None:
    assert find_episodes(rows_of(["happy"] * 50, sure=0.45), EMOTIONS) == []


def test_onset_and_offset_are_where_the_lower_threshold_is_crossed() -> None:
    """A triangle from 0 to 0.9 in a second and back crosses 0.4 at 0.44 s and 1.56 s."""
    rise = np.minimum(np.arange(51), 50 - np.arange(51)) / 25 * 0.9
    (episode,) = [each for each in find_episodes(curve_of(rise), EMOTIONS, UNSMOOTHED) if each.emotion == "happy"]
    assert episode.apex_s == 1.0
    assert (episode.start_s, episode.end_s) == pytest.approx((0.48, 1.52))
    assert episode.peak_probability == pytest.approx(0.9)


def test_what_hovers_about_a_threshold_is_one_episode() -> None:
    hovering = curve_of(0.5 + 0.07 * np.sin(np.arange(200)))
    assert labels_and_counts(find_episodes(hovering, EMOTIONS, UNSMOOTHED)) == [("happy", 200)]
    without = EpisodeRules(smooth_seconds=0, leave=0.5, least_seconds=0)
    assert len(find_episodes(hovering, EMOTIONS, without)) > 20


@pytest.mark.parametrize("hz", [10, 25, 120])
def test_seconds_and_not_rows_count(hz: float) -> None:
    """The same smile at three frame rates."""
    times = np.arange(0, 4, 1 / hz)
    found = find_episodes(curve_of(0.9 * np.exp(-(((times - 2) / 0.6) ** 2)), hz), EMOTIONS)
    (episode,) = [each for each in found if each.emotion == "happy"]
    assert episode.apex_s == pytest.approx(2, abs=0.06)
    assert (episode.start_s, episode.end_s) == pytest.approx((1.45, 2.55), abs=0.1)


@pytest.mark.parametrize(("gap_s", "episodes"), [(0.3, 1), (GAP_SECONDS, 1), (GAP_SECONDS + 0.02, 2), (20, 2)])
def test_a_long_time_out_of_view_splits(gap_s: float, episodes: int) -> None:
    times = np.arange(20) / 25
    rows = rows_of(["happy"] * 40, [*times, *(times + times[-1] + gap_s)])
    assert len(find_episodes(rows, EMOTIONS)) == episodes


def test_sparse_samples_are_no_gaps() -> None:
    assert labels_and_counts(find_episodes(rows_of(["happy"] * 20, np.arange(20) * 2.0), EMOTIONS)) == [("happy", 20)]


def test_smoothing_does_not_reach_over_a_gap() -> None:
    rows = rows_of(["happy"] * 10 + ["sad"] * 10, [*(np.arange(10) / 25), *(5 + np.arange(10) / 25)])
    found = find_episodes(rows, EMOTIONS, EpisodeRules(smooth_seconds=100))
    assert [episode.peak_probability for episode in found] == pytest.approx([0.88, 0.88])


def test_a_single_row_such_as_a_picture() -> None:
    (episode,) = find_episodes(rows_of(["angry"], [3.25]), EMOTIONS)
    assert (episode.start_s, episode.apex_s, episode.end_s, episode.n_frames) == (3.25, 3.25, 3.25, 1)


def test_no_rows() -> None:
    assert find_episodes(rows_of([]), EMOTIONS) == []


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.floats(0.001, 1.5), st.sampled_from(EMOTIONS)), min_size=1, max_size=25),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([EpisodeRules(), UNSMOOTHED, EpisodeRules(enter=0, leave=0, least_seconds=0)]),
)
def test_episodes_of_a_track_do_not_overlap(tracks: list[list[tuple[float, str]]], rules: EpisodeRules) -> None:
    tables = [
        rows_of([name for _, name in rows], np.cumsum([step for step, _ in rows]), track_id=number) for number, rows in enumerate(tracks, 1)
    ]
    faces = pd.concat(tables).sort_values("time_s")
    episodes = find_episodes(faces, EMOTIONS, rules)
    if not rules.least_seconds:
        assert sum(episode.n_frames for episode in episodes) == len(faces), "the most probable emotion is one at every time"
    for number, table in enumerate(tables, 1):
        own = [episode for episode in episodes if episode.track_id == number]
        for episode in own:
            assert episode.start_s <= episode.apex_s <= episode.end_s
            assert rules.enter <= episode.peak_probability <= 1
            assert episode.n_frames == table["time_s"].between(episode.start_s, episode.end_s).sum()
        assert all(one.end_s < other.start_s for one, other in pairwise(own))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.02, 0.04, 0.7]), st.sampled_from(EMOTIONS), st.floats(0.3, 0.9)), min_size=1), st.integers(1, 9)
)
def test_rows_may_come_in_any_pieces(rows: list[tuple[float, str, float]], pieces: int) -> None:
    parts = [rows_of([name] * 4, sure=sure) for _, name, sure in rows]
    faces = pd.concat(parts, ignore_index=True).assign(time_s=np.cumsum(np.repeat([step for step, _, _ in rows], 4)))
    expected = find_episodes(faces)
    assert find_episodes(faces, pieces=pieces) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_ROWS", 3)
        in_blocks = find_episodes(faces, pieces=pieces)
    assert [(each.emotion, each.start_s, each.end_s) for each in in_blocks] == [
        (each.emotion, each.start_s, each.end_s) for each in expected
    ]


# For pandas


def test_the_table_is_that_of_a_run() -> None:
    faces = pd.concat([rows_of(["happy"] * 30).assign(media=name) for name in ("b.mp4", "a.mp4")], ignore_index=True)
    found = batchemo.episodes(faces)
    assert list(found.columns) == EPISODES.names
    assert found.dtypes.to_dict() == EPISODES.empty_table().to_pandas().astype({"media": "str", "emotion": "str"}).dtypes.to_dict()
    assert found["media"].tolist() == ["a.mp4", "b.mp4"]
    nothing = batchemo.episodes(faces.iloc[:0])
    assert (len(nothing), nothing.dtypes.to_dict()) == (0, found.dtypes.to_dict())


def test_other_choices() -> None:
    faces = rows_of(["happy"] * 30 + ["sad"] * 10, sure=0.45)
    assert batchemo.episodes(faces).empty
    assert batchemo.episodes(faces, enter=0.4, smooth_seconds=0)["emotion"].tolist() == ["happy", "sad"]
    assert batchemo.episodes(faces, enter=0.3, smooth_seconds=0, least_seconds=1)["emotion"].tolist() == ["happy"]


@pytest.mark.parametrize(
    ("choices", "word"),
    [
        ({"enter": 0.3, "leave": 0.4}, "leave=0.4 and enter=0.3"),
        ({"enter": 1.1}, "enter=1.1"),
        ({"smooth_seconds": -1}, "smooth_seconds=-1"),
        ({"gap_seconds": -0.1}, "gap_seconds"),
    ],
)
def test_choices_that_cannot_be(choices: dict[str, float], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        batchemo.episodes(rows_of(["happy"]), **choices)


def test_tables_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="no column 'time_s'; did you mean 'times'"):
        batchemo.episodes(rows_of(["happy"]).rename(columns={"time_s": "times"}))
    with pytest.raises(UsageError, match="p_<emotion>"):
        batchemo.episodes(rows_of(["happy"])[["track_id", "time_s"]])
