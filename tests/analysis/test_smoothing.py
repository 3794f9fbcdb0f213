"""Smoothing goes by time, stays within a track and its gaps, and changes nothing but probabilities and what is read off them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import batchemo
from batchemo.errors import UsageError
from batchemo.results.episodes import moving_mean


def faces_of(p_happy: list[float], times: list[float], *, track_id: int = 1) -> pd.DataFrame:
    happy = np.array(p_happy, np.float32)
    frame = pd.DataFrame({"media": "a.mp4", "track_id": np.int32(track_id), "time_s": times, "p_happy": happy, "p_sad": 1 - happy})
    return frame.assign(emotion="?", confidence=np.float32(0), uncertain=False, sharpness=np.float32(7))


def test_the_mean_is_that_of_its_window() -> None:
    times = np.array([0.0, 0.1, 0.2, 0.9, 1.0])
    values = np.array([[1.0], [2.0], [3.0], [4.0], [10.0]])
    np.testing.assert_allclose(moving_mean(times, values, 0.2)[:, 0], [1.5, 2.0, 2.5, 7.0, 7.0])
    np.testing.assert_allclose(moving_mean(times, values, 0)[:, 0], values[:, 0])


def test_the_window_is_in_seconds_whatever_the_rate() -> None:
    """A step at 1 s; rows come 10 times as often after it."""
    times = [*np.arange(0, 1, 0.1), *np.arange(1, 2, 0.01)]
    faces = batchemo.smooth(faces_of([0.0] * 10 + [1.0] * 100, times), seconds=0.4)
    at = faces.set_index(faces["time_s"].round(2))["p_happy"]
    assert at[0.7] == 0
    assert at[1.3] == 1
    assert 0 < at[0.9] < 1


def test_tracks_gaps_and_order_are_kept() -> None:
    one = faces_of([1.0, 1.0, 0.0, 0.0], [0.0, 0.1, 5.0, 5.1])
    other = faces_of([0.5, 0.5, 0.5, 0.5], [0.0, 0.1, 5.0, 5.1], track_id=2)
    mixed = pd.concat([one, other]).sample(frac=1, random_state=0)
    found = batchemo.smooth(mixed, seconds=100)
    assert found.index.equals(mixed.index)
    assert found["p_happy"].tolist() == mixed["p_happy"].tolist(), "nothing crosses a gap, or from one track to another"
    assert found.columns.equals(mixed.columns)
    assert found.dtypes.to_dict() == mixed.dtypes.to_dict()


def test_what_is_read_off_follows() -> None:
    faces = faces_of([0.9, 0.9, 0.3, 0.9, 0.9], [0.0, 0.1, 0.2, 0.3, 0.4])
    found = batchemo.smooth(faces, seconds=1, uncertain_below=0.8)
    assert found["emotion"].tolist() == ["happy"] * 5
    assert found["confidence"].tolist() == pytest.approx([0.78] * 5)
    assert found["uncertain"].all()
    assert faces["p_happy"].tolist() == pytest.approx([0.9, 0.9, 0.3, 0.9, 0.9]), "the given table stays as it is"


def test_missing_labels_stay_missing() -> None:
    faces = faces_of([0.6, 0.6], [0.0, 0.1]).assign(p_calm=np.nan)
    found = batchemo.smooth(faces)
    assert found["p_calm"].isna().all()
    assert found["emotion"].tolist() == ["happy", "happy"]


def test_no_rows_and_wrong_ones() -> None:
    assert batchemo.smooth(faces_of([], [])).empty
    with pytest.raises(UsageError, match="track_id"):
        batchemo.smooth(faces_of([1.0], [0.0]).drop(columns="track_id"))
    with pytest.raises(UsageError, match="negative"):
        batchemo.smooth(faces_of([1.0], [0.0]), seconds=-1)
