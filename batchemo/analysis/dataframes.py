"""Finds the labels, tracks, gaps and row durations of a DataFrame of faces."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchemo.errors import UsageError, suggestion
from batchemo.results.episodes import GAP_SECONDS, GAP_STEPS, longest_step

STILL_SECONDS = 1.0
"""Duration of a still image in shares of time: a convention."""


def require_columns(frame: pd.DataFrame, columns: Sequence[str], *, what: str) -> None:
    """Raises UsageError where `frame` lacks one of the `columns` that the function `what` reads."""
    for column in columns:
        if column not in frame.columns:
            raise UsageError(f"{what}: the table has no column {column!r}; {suggestion(column, [str(name) for name in frame.columns])}")


def labels_of(frame: pd.DataFrame) -> list[str]:
    """The emotions with a column `p_<emotion>`, in the order of the columns."""
    return [str(column).removeprefix("p_") for column in frame.columns if str(column).startswith("p_")]


def track_keys(frame: pd.DataFrame, *, what: str) -> list[str]:
    """The columns that identify a track: `track_id`, preceded by `results` and `media` where the table has them."""
    require_columns(frame, ["track_id", "time_s"], what=what)
    return [name for name in ("results", "media", "track_id") if name in frame.columns]


def tracks_in(frame: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[dict[str, object], NDArray[np.intp]]]:
    """Yields each track's values of `keys`, and the positions of its rows sorted by time. Tracks are sorted by `keys`."""
    times = frame["time_s"].to_numpy(np.float64)
    for names, positions in sorted(frame.groupby(list(keys), sort=False).indices.items()):
        values = names if isinstance(names, tuple) else (names,)
        found = np.asarray(positions)
        yield dict(zip(keys, values, strict=True)), found[np.argsort(times[found], kind="stable")]


def split_at_gaps(times: NDArray[np.float64], gap_seconds: float) -> list[slice]:
    """Slices of a track's increasing `times`, split where it is out of view for longer than `gap_seconds` (or 1.5 median steps)."""
    steps = np.diff(times)
    longest = longest_step(float(np.median(steps)), gap_seconds) if len(steps) else gap_seconds
    borders = [0, *(np.flatnonzero(steps > longest) + 1).tolist(), len(times)]
    return [slice(start, end) for start, end in itertools.pairwise(borders) if end > start]


def durations(faces: pd.DataFrame, *, gap_seconds: float = GAP_SECONDS, still_seconds: float = STILL_SECONDS) -> pd.Series[float]:
    """Seconds that each row stands for: until the next row of its track; at its end and before a gap, the track's median step.

    A track of a single row takes the median step of its medium; in a still image there is none, and `still_seconds` counts.
    """
    keys = track_keys(faces, what="durations")
    rows = faces[[*keys, "time_s"]].reset_index(drop=True).sort_values([*keys, "time_s"], kind="stable")
    steps = -rows.groupby(keys, sort=False)["time_s"].diff(-1)
    usual = steps.groupby([rows[key] for key in keys], sort=False).transform("median")
    within = [rows[key] for key in keys if key != "track_id"]
    usual = usual.fillna(steps.groupby(within, sort=False).transform("median") if within else steps.median())
    longest = (GAP_STEPS * usual).clip(lower=gap_seconds) + 1e-9
    lasting = steps.where(steps <= longest, usual).fillna(still_seconds)
    return pd.Series(lasting.sort_index().to_numpy(), index=faces.index, name="seconds")
