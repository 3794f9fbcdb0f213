"""Tables of faces as DataFrames: which columns they have, whose rows are whose, and how long each row stands for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchemo.errors import UsageError, suggestion
from batchemo.results.episodes import GAP_SECONDS, GAP_STEPS, longest_step

STILL_SECONDS = 1.0
"""What a picture counts for beside videos: it has no length of its own, so this is a choice and no measurement."""


def need(frame: pd.DataFrame, columns: Sequence[str], *, what: str) -> None:
    """Raises UsageError where a column is missing that `what` reads; it names the column and what it may have been."""
    for column in columns:
        if column not in frame.columns:
            raise UsageError(f"{what}: the table has no column {column!r}; {suggestion(column, [str(name) for name in frame.columns])}")


def labels_of(frame: pd.DataFrame) -> list[str]:
    """The emotions of the columns `p_<emotion>`, in their order."""
    return [str(column).removeprefix("p_") for column in frame.columns if str(column).startswith("p_")]


def track_keys(frame: pd.DataFrame, *, what: str) -> list[str]:
    """The columns that tell one track from all others: `track_id`, before it `media` and `results` where the table has them."""
    need(frame, ["track_id", "time_s"], what=what)
    return [name for name in ("results", "media", "track_id") if name in frame.columns]


def tracks_in(frame: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[dict[str, object], NDArray[np.intp]]]:
    """Each track's values of `keys`, and the positions of its rows in the order of their times; sorted by `keys`."""
    times = frame["time_s"].to_numpy(np.float64)
    for names, positions in sorted(frame.groupby(list(keys), sort=False).indices.items()):
        values = names if isinstance(names, tuple) else (names,)
        found = np.asarray(positions)
        yield dict(zip(keys, values, strict=True)), found[np.argsort(times[found], kind="stable")]


def unbroken(times: NDArray[np.float64], gap_seconds: float) -> list[slice]:
    """Parts of a track's increasing `times` between which it was out of view for longer than `gap_seconds` (or 1.5 usual steps)."""
    steps = np.diff(times)
    longest = longest_step(float(np.median(steps)), gap_seconds) if len(steps) else gap_seconds
    borders = [0, *(np.flatnonzero(steps > longest) + 1).tolist(), len(times)]
    return [slice(start, end) for start, end in itertools.pairwise(borders) if end > start]


def durations(faces: pd.DataFrame, *, gap_seconds: float = GAP_SECONDS, still_seconds: float = STILL_SECONDS) -> pd.Series[float]:
    """Seconds that each row stands for: until the next row of its track, or the usual step of that track at its end and before a gap.

    A track of a single row takes the usual step of its medium; where there is none, as in a picture, `still_seconds`.
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
