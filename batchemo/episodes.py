"""From the rows of a timeline to what happened: the episodes of one emotion on each track."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SMOOTH_SECONDS = 0.5
"""Width of the moving average over a track's probabilities before an emotion is read off: expressions that people notice last
half a second and longer (Ekman 2003), what is shorter is mostly noise of a single frame."""

LEAST_SECONDS = 0.3
"""Stretches shorter than this belong to the one before, at the beginning to the one after."""

GAP_SECONDS = 0.5
"""An episode does not reach over a longer time out of view."""

_GAP_STEPS = 1.5


@dataclasses.dataclass(frozen=True, slots=True)
class Episode:
    """One emotion on one track, from its first frame to its last; the apex is where its smoothed probability is highest."""

    track_id: int
    emotion: str
    start_s: float
    apex_s: float
    end_s: float
    peak_probability: float
    n_frames: int


def find_episodes(
    faces: pd.DataFrame,
    labels: Sequence[str],
    *,
    smooth_seconds: float = SMOOTH_SECONDS,
    least_seconds: float = LEAST_SECONDS,
    gap_seconds: float = GAP_SECONDS,
) -> list[Episode]:
    """Episodes of one medium's rows of `faces` (columns `track_id`, `time_s`, `p_<label>`), by track and time."""
    found: list[Episode] = []
    for track_id, rows in faces.groupby("track_id", sort=True):
        times = rows["time_s"].to_numpy(np.float64)
        raw = rows[[f"p_{label}" for label in labels]].to_numpy(np.float64)
        for part in _unbroken(times, gap_seconds):
            smoothed = smooth(times[part], raw[part], smooth_seconds)
            for stretch, label in _stretches(times[part], smoothed.argmax(axis=1), least_seconds):
                curve = smoothed[stretch, label]
                apex = int(curve.argmax())
                within = times[part][stretch]
                found.append(
                    Episode(
                        track_id=int(str(track_id)),
                        emotion=labels[label],
                        start_s=float(within[0]),
                        apex_s=float(within[apex]),
                        end_s=float(within[-1]),
                        peak_probability=float(curve[apex]),
                        n_frames=len(within),
                    )
                )
    return found


def smooth(times: NDArray[np.float64], values: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """Mean of `values` (N x K) over all rows within `seconds` / 2 of each of the increasing `times` (N)."""
    first = np.searchsorted(times, times - seconds / 2 - 1e-9, side="left")
    last = np.searchsorted(times, times + seconds / 2 + 1e-9, side="right")
    sums = np.vstack([np.zeros(values.shape[1]), np.cumsum(values, axis=0)])
    return np.asarray((sums[last] - sums[first]) / (last - first)[:, None])


def _unbroken(times: NDArray[np.float64], gap_seconds: float) -> Iterator[slice]:
    """Slices between which the track was out of view for longer than `gap_seconds` (or one and a half usual steps)."""
    steps = np.diff(times)
    longest = max(gap_seconds, _GAP_STEPS * float(np.median(steps))) if len(steps) else gap_seconds
    borders = [0, *(np.flatnonzero(steps > longest + 1e-9) + 1).tolist(), len(times)]
    for start, end in itertools.pairwise(borders):
        yield slice(start, end)


def _stretches(times: NDArray[np.float64], classes: NDArray[np.int64], least_seconds: float) -> Iterator[tuple[slice, int]]:
    """Runs of one class, each at least `least_seconds` long unless there is only one."""
    borders = [0, *(np.flatnonzero(np.diff(classes)) + 1).tolist(), len(times)]
    start, label = 0, int(classes[0])
    for run_start, run_end in itertools.pairwise(borders):
        run_label = int(classes[run_start])
        lasting = times[min(run_end, len(times) - 1)] - times[run_start]
        if run_label == label or lasting < least_seconds:
            continue
        # Until the first lasting run there was none to belong to, so its label counts from the beginning.
        if times[run_start] - times[start] >= least_seconds:
            yield slice(start, run_start), label
            start = run_start
        label = run_label
    yield slice(start, len(times)), label
