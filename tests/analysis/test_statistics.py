"""Resampling, shares of time and transitions count seconds, not rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import batchemo
from batchemo.analysis.dataframes import durations
from batchemo.errors import UsageError

LABELS = ("happy", "sad", "neutral")


def track(emotions: list[str], hz: float = 10, *, media: str = "a.mp4", track_id: int = 1, start_s: float = 0.0) -> pd.DataFrame:
    """Faces with a probability of 0.8 for these emotions."""
    frame = pd.DataFrame({"media": media, "frame_index": range(len(emotions)), "track_id": np.int32(track_id)})
    frame["time_s"] = start_s + np.arange(len(emotions)) / hz
    for label in LABELS:
        frame[f"p_{label}"] = np.where(np.array(emotions, object) == label, 0.8, 0.1).astype(np.float32)
    return frame.assign(emotion=emotions, confidence=np.float32(0.8), uncertain=False, box_x1=np.float32(5))


# How long a row stands


def test_a_row_stands_until_the_next() -> None:
    faces = track(["happy"] * 4).assign(time_s=[0.0, 0.1, 0.3, 0.4])
    assert durations(faces).tolist() == pytest.approx([0.1, 0.2, 0.1, 0.1])


def test_time_out_of_view_counts_for_nobody() -> None:
    faces = track(["happy"] * 5).assign(time_s=[0.0, 0.1, 0.2, 9.0, 9.1])
    assert durations(faces).sum() == pytest.approx(0.5)


def test_sparse_rows_stand_for_long() -> None:
    assert durations(track(["happy"] * 5, hz=0.5)).tolist() == [2.0] * 5


def test_pictures_and_single_rows() -> None:
    faces = pd.concat(
        [track(["sad"], media="a.jpg"), track(["happy"] * 3, media="b.mp4"), track(["sad"], media="b.mp4", track_id=2)], ignore_index=True
    )
    assert durations(faces).tolist() == pytest.approx([1.0, 0.1, 0.1, 0.1, 0.1])
    assert durations(faces, still_seconds=0.5)[0] == 0.5


def test_the_order_and_the_index_of_rows_do_not_matter() -> None:
    faces = pd.concat([track(["happy"] * 4, hz=10), track(["sad"] * 4, hz=2, track_id=2)]).sample(frac=1, random_state=1)
    assert faces.index.has_duplicates
    found = durations(faces)
    assert found.index.equals(faces.index)
    assert found.to_numpy()[faces["track_id"].to_numpy() == 2].tolist() == [0.5] * 4


# Shares


def test_time_counts_and_not_rows() -> None:
    """A second of joy at 50 rows a second beside a second of sorrow at 5."""
    faces = pd.concat([track(["happy"] * 50, hz=50), track(["sad"] * 5, hz=5, media="b.mp4")])
    assert batchemo.share(faces).loc["all"].to_dict() == pytest.approx({"happy": 0.5, "sad": 0.5, "neutral": 0.0})
    by_medium = batchemo.share(faces, by="media")
    assert list(by_medium.loc["b.mp4"]) == [0, 1, 0]


def test_any_grouping() -> None:
    faces = track(["happy"] * 10 + ["sad"] * 10)
    by_half = batchemo.share(faces, by=["media", (faces["time_s"] // 1).rename("second")])
    assert by_half.index.names == ["media", "second"]
    assert by_half["happy"].tolist() == [1, 0]
    two = pd.concat([faces.assign(results="one"), faces.assign(results="two")])
    assert batchemo.share(two, by="results")["sad"].tolist() == pytest.approx([0.5, 0.5])


def test_uncertain_rows_take_their_time_along() -> None:
    faces = track(["happy", "sad"] * 10)
    faces["uncertain"] = faces["emotion"] == "sad"
    assert list(batchemo.share(faces, certain=True).loc["all"]) == [1, 0, 0]
    none = batchemo.share(faces.assign(uncertain=True), by="media", certain=True)
    assert none.isna().all(axis=None)


def test_probabilities_keep_the_doubt() -> None:
    faces = track(["happy"] * 10)
    assert list(batchemo.share(faces, probabilities=True).loc["all"]) == pytest.approx([0.8, 0.1, 0.1])


def test_shares_of_tables_without_probabilities() -> None:
    faces = track(["sad", "happy"])[["media", "track_id", "time_s", "emotion"]]
    assert batchemo.share(faces).columns.tolist() == ["happy", "sad"]


def test_a_grouping_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no column 'medium'; did you mean 'media'"):
        batchemo.share(track(["happy"]), by="medium")


# A fixed rate


@pytest.mark.parametrize("hz", [4, 10, 25])
def test_a_fixed_rate(hz: float) -> None:
    """A straight line stays one, whether rows are averaged or interpolated."""
    times = np.cumsum([0.0, *np.tile([0.014, 0.042, 0.031], 40)])
    faces = track(["happy"] * len(times)).assign(time_s=times, p_happy=times / 10, box_x1=times)
    found = batchemo.resample(faces, hz)
    np.testing.assert_allclose(found["time_s"] * hz, np.round(found["time_s"] * hz), atol=1e-9)
    assert np.diff(found["time_s"]) == pytest.approx(1 / hz)
    inner = found.iloc[1:-1]
    np.testing.assert_allclose(inner["box_x1"], inner["time_s"], atol=0.03)
    assert len(found) == round(times[-1] * hz) + 1


def test_tracks_share_their_times_and_gaps_stay() -> None:
    faces = pd.concat(
        [track(["happy"] * 10, start_s=0.037), track(["sad"] * 10, start_s=7.037), track(["sad"] * 30, hz=30, track_id=2, start_s=0.02)]
    )
    found = batchemo.resample(faces, 5)
    first, second = (set(found.loc[found["track_id"] == number, "time_s"].round(6)) for number in (1, 2))
    assert {0.2, 0.4, 0.6, 0.8} <= first & second
    assert not [time for time in first if 1.1 < time < 7]
    assert (found["confidence"] == found[["p_happy", "p_sad", "p_neutral"]].max(axis=1)).all()
    assert "frame_index" not in found.columns
    assert found["track_id"].dtype == np.int32


def test_rates_that_cannot_be() -> None:
    for hz in (0, -1, float("nan"), 5000):
        with pytest.raises(UsageError, match="hz="):
            batchemo.resample(track(["happy"]), hz)


def test_no_rows_keep_their_columns() -> None:
    faces = track(["happy"] * 3)
    assert batchemo.resample(faces.iloc[:0], 5).dtypes.to_dict() == batchemo.resample(faces, 5).dtypes.to_dict()


# What follows what


def test_transitions_are_counted_on_each_track() -> None:
    faces = pd.concat(
        [
            track(["happy"] * 20 + ["sad"] * 20 + ["happy"] * 20),
            track(["neutral"] * 20 + ["happy"] * 20, track_id=2),
            track(["sad"] * 20, media="b.mp4"),
        ]
    )
    found = batchemo.transitions(faces)
    assert found.stack()[lambda counts: counts > 0].to_dict() == {("happy", "sad"): 1, ("sad", "happy"): 1, ("neutral", "happy"): 1}
    assert found.columns.tolist() == found.index.tolist() == ["happy", "sad", "neutral"]
    pd.testing.assert_frame_equal(batchemo.transitions(batchemo.episodes(faces)), found)
    shares = batchemo.transitions(pd.concat([faces, track(["happy"] * 20 + ["neutral"] * 20, media="c.mp4")]), shares=True)
    assert list(shares.loc["happy"]) == [0, 0.5, 0.5]


def test_what_lies_far_apart_does_not_follow() -> None:
    faces = pd.concat([track(["happy"] * 20), track(["sad"] * 20, start_s=6.0)])
    assert batchemo.transitions(faces).to_numpy().sum() == 0
    assert batchemo.transitions(faces, within_seconds=5).loc["happy", "sad"] == 1


def test_nothing_follows_in_no_rows() -> None:
    assert batchemo.transitions(track(["happy"]).iloc[:0]).to_numpy().sum() == 0


def test_importing_batchemo_offers_all_and_loads_nothing() -> None:
    import subprocess
    import sys

    script = (
        "import sys, batchemo\nassert 'share' in dir(batchemo)\nprint(*[n for n in ('pandas', 'numpy', 'pyarrow') if n in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert ended.stdout.split() == []
    for name in batchemo.__all__:
        assert getattr(batchemo, name) is not None
    with pytest.raises(AttributeError, match="shares"):
        _ = batchemo.shares
