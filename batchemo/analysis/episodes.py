"""Finds episodes in a DataFrame of faces, with thresholds of your choice. The algorithm itself is in `results.episodes`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchemo.analysis.dataframes import labels_of, track_keys, tracks_in
from batchemo.errors import UsageError
from batchemo.results.episodes import ENTER, GAP_SECONDS, LEAST_SECONDS, SMOOTH_SECONDS, Episode, EpisodeFinder, EpisodeRules

EPISODE_DTYPES = {"emotion": "str", "start_s": "f8", "apex_s": "f8", "end_s": "f8", "peak_probability": "f4", "n_frames": "i4"}
"""Columns of the table, after those that name the track, with their types."""


def episodes(
    faces: pd.DataFrame,
    *,
    smooth_seconds: float = SMOOTH_SECONDS,
    enter: float = ENTER,
    leave: float | None = None,
    least_seconds: float = LEAST_SECONDS,
    gap_seconds: float = GAP_SECONDS,
) -> pd.DataFrame:
    """The episodes in `faces`, sorted by medium, track and time: the table `episodes`, with thresholds of your choice.

    The probability of an emotion is averaged over `smooth_seconds`. Its episode:

    - begins at `start_s` (onset), where the probability rises to `leave` on its way to `enter` or beyond;
    - has its highest probability at `apex_s`;
    - ends at `end_s` (offset, the time of its last frame), before the probability falls below `leave` (by default 0.4, or `enter` if
      that is less), or before another emotion leads with at least `enter`.

    Episodes shorter than `least_seconds` are left out, and shorter interruptions are bridged. No episode contains a time out of view
    longer than `gap_seconds`. Rows in no episode show no emotion clearly.

    The terms are those of FACS (Ekman, Friesen and Hager 2002). The constants in `batchemo.results.episodes` give the sources of the
    defaults. `enter=0, leave=0, least_seconds=0` yields the most probable emotion at every time. Raises UsageError.
    """
    rules = EpisodeRules(smooth_seconds, enter, leave, least_seconds, gap_seconds)
    keys = track_keys(faces, what="episodes")
    labels = labels_of(faces)
    if not labels:
        raise UsageError("episodes: the table has no columns p_<emotion>; load the faces with: batchemo.load(DIR)")
    values = faces[[f"p_{label}" for label in labels]].to_numpy(np.float64)
    times = faces["time_s"].to_numpy(np.float64)
    found = [
        {**names, **dataclasses.asdict(episode), "track_id": names["track_id"]}
        for names, rows in tracks_in(faces, keys)
        for episode in _on_track(times[rows], values[rows], labels, rules)
    ]
    table = pd.DataFrame(found, columns=[*keys, *EPISODE_DTYPES])
    return table.astype({**{key: faces[key].dtype for key in keys}, **EPISODE_DTYPES})


def _on_track(times: NDArray[np.float64], values: NDArray[np.float64], labels: Sequence[str], rules: EpisodeRules) -> Iterator[Episode]:
    step_s = float(np.median(np.diff(times))) if len(times) > 1 else np.inf  # a still image is long enough
    finder = EpisodeFinder(0, labels, rules, step_s=step_s)
    yield from finder.add(times, values)
    yield from finder.close()
