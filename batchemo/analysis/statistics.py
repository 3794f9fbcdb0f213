"""What analysts ask of timelines: a fixed rate, shares of time, what follows what."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchemo.analysis.episodes import episodes
from batchemo.analysis.frames import STILL_SECONDS, durations, labels_of, need, track_keys, tracks_in, unbroken
from batchemo.analysis.smoothing import UNCERTAIN_BELOW, with_probabilities
from batchemo.errors import UsageError
from batchemo.records import EMOTIONS
from batchemo.results.episodes import GAP_SECONDS

WITHIN_SECONDS = 2.0
"""Longest time without a clear emotion between two episodes that are still taken as one after the other: half of what the longest
macro-expressions last (4 s: Ekman 2003), so that nothing of that length can have been missed in between."""


def resample(faces: pd.DataFrame, hz: float, *, gap_seconds: float = GAP_SECONDS, uncertain_below: float = UNCERTAIN_BELOW) -> pd.DataFrame:
    """Each track at `hz` rows a second, at multiples of 1 / `hz` seconds, so that all tracks and media share their times.

    A row is the mean of those within half a step of it or, where there is none, lies on the straight line between its two neighbours; there
    are no rows in a track's gaps of more than `gap_seconds`. Columns of whole numbers and texts have no mean and are left out,
    `emotion`, `confidence` and `uncertain` are read off the new probabilities. Raises UsageError.
    """
    if not 0 < hz <= 1000:
        raise UsageError(f"resample: hz={hz} must be above 0 and at most 1000 rows a second")
    keys = track_keys(faces, what="resample")
    labels = labels_of(faces)
    columns = [name for name in faces.columns if pd.api.types.is_float_dtype(faces[name]) and name not in {*keys, "time_s", "confidence"}]
    values = faces[columns].to_numpy(np.float64)
    times = faces["time_s"].to_numpy(np.float64)
    owners, grids, means = [], [np.empty(0)], [np.empty((0, len(columns)))]
    for names, rows in tracks_in(faces, keys):
        for part in unbroken(times[rows], gap_seconds):
            grid, mean = _at_rate(times[rows[part]], values[rows[part]], hz)
            owners.extend([tuple(names.values())] * len(grid))
            grids.append(grid)
            means.append(mean)
    result = pd.DataFrame(owners, columns=keys).assign(time_s=np.concatenate(grids))
    result[columns] = np.concatenate(means)
    result = result.astype({name: faces[name].dtype for name in (*keys, *columns)})
    if not labels:
        return result
    read = result[[f"p_{label}" for label in labels]].to_numpy(np.float64)
    return with_probabilities(result, read, labels, uncertain_below=uncertain_below)


def share(
    faces: pd.DataFrame,
    by: Hashable | Sequence[Any] = (),
    *,
    certain: bool = False,
    probabilities: bool = False,
    gap_seconds: float = GAP_SECONDS,
    still_seconds: float = STILL_SECONDS,
) -> pd.DataFrame:
    """Share of time of each emotion (columns; each row sums to 1) within the groups that `by` makes (index), as in `DataFrame.groupby`.

    `by` is a column, or a list of columns and Series: `share(faces, by=["media", "track_id"])`. Without it there is one row, `all`.

    Rows count as long as they stand for (until the next row of their track; no time out of view of more than `gap_seconds`), so that a
    clip of 60 frames a second weighs no more than one of 25; a picture counts `still_seconds`. `certain` leaves out rows marked uncertain
    together with their time; do not drop them before, or the rows before them would stand for their time. `probabilities` takes the
    mean of the probabilities instead of the time of the most probable emotion, which keeps the doubt that a label throws away.
    Raises UsageError.
    """
    need(faces, ["emotion", *(["uncertain"] if certain else [])], what="share")
    groups = list(by) if isinstance(by, (list, tuple)) else [by]
    need(faces, [group for group in groups if isinstance(group, str)], what="share")
    seconds = durations(faces, gap_seconds=gap_seconds, still_seconds=still_seconds).to_numpy()
    if certain:
        seconds = np.where(faces["uncertain"], 0.0, seconds)
    labels = labels_of(faces) or _ordered(faces["emotion"])
    if probabilities:
        need(faces, [f"p_{label}" for label in labels], what="share")
        weights = faces[[f"p_{label}" for label in labels]].fillna(0.0).to_numpy(np.float64) * seconds[:, None]
    else:
        weights = (faces["emotion"].to_numpy()[:, None] == np.array(labels, object)) * seconds[:, None]
    table = pd.DataFrame(weights, columns=labels, index=faces.index)
    if groups:
        sums = table.groupby([faces[group] if isinstance(group, str) else group for group in groups]).sum()
    else:
        sums = table.sum().to_frame("all").T
    result: pd.DataFrame = sums.div(sums.sum(axis=1).replace(0.0, np.nan), axis=0)
    result.columns.name = "emotion"
    return result


def transitions(table: pd.DataFrame, *, within_seconds: float = WITHIN_SECONDS, shares: bool = False) -> pd.DataFrame:
    """How often an episode of one emotion (index `from`) is followed by one of another (columns `to`) on the same track.

    `table` is of `episodes`, or of `faces` whose episodes are found by their defaults first. Episodes with more than `within_seconds`
    between them do not follow one another. `shares` divides each row by its sum. Raises UsageError.
    """
    found = table if "start_s" in table.columns else episodes(table)
    need(found, ["track_id", "emotion", "start_s", "end_s"], what="transitions")
    keys = [name for name in ("results", "media", "track_id") if name in found.columns]
    ordered = found.sort_values([*keys, "start_s"], kind="stable")
    after = ordered.groupby(keys, sort=False)[["emotion", "start_s"]].shift(-1)
    follows = (after["start_s"] - ordered["end_s"] <= within_seconds + 1e-9).to_numpy()
    names = _ordered(pd.concat([found["emotion"], pd.Series(labels_of(table), dtype="str")]))
    counts = pd.crosstab(ordered["emotion"][follows], after["emotion"][follows])
    counts = counts.reindex(index=names, columns=names, fill_value=0).astype(np.int64)
    counts = counts.rename_axis(index="from", columns="to")
    return counts.div(counts.sum(axis=1).replace(0, np.nan), axis=0) if shares else counts


def _at_rate(times: NDArray[np.float64], values: NDArray[np.float64], hz: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`values` (N x K) at the multiples of 1 / `hz` nearest to and between the increasing `times` (N)."""
    steps = np.arange(np.floor(times[0] * hz + 0.5), np.floor(times[-1] * hz + 0.5) + 1)
    grid = steps / hz
    first = np.searchsorted(times, (steps - 0.5) / hz - 1e-9, side="left")
    last = np.searchsorted(times, (steps + 0.5) / hz - 1e-9, side="left")
    sums = np.vstack([np.zeros(values.shape[1]), np.cumsum(np.nan_to_num(values), axis=0)])
    counts = last - first
    means = (sums[last] - sums[first]) / np.maximum(counts, 1)[:, None]
    between = counts == 0
    for column in range(values.shape[1]):
        means[between, column] = np.interp(grid[between], times, values[:, column])
    means[:, np.isnan(values).all(axis=0)] = np.nan
    return grid, means


def _ordered(emotions: pd.Series[Any]) -> list[str]:
    """The names in `emotions`: ours in their usual order, then others by the alphabet."""
    names = set(emotions.dropna().unique())
    usual = [name for name in EMOTIONS if name in names]
    return [*usual, *sorted(names - set(usual))]
