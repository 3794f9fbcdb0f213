"""The episodes of one emotion in rows of `faces`, with choices of one's own: for pandas."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchemo.analysis.frames import labels_of, track_keys, tracks_in
from batchemo.errors import UsageError
from batchemo.results.episodes import ENTER, GAP_SECONDS, LEAST_SECONDS, SMOOTH_SECONDS, Episode, EpisodeFinder, EpisodeRules

KINDS = {"emotion": "str", "start_s": "f8", "apex_s": "f8", "end_s": "f8", "peak_probability": "f4", "n_frames": "i4"}
"""Columns of the table after those that say whose episode it is."""


def episodes(
    faces: pd.DataFrame,
    *,
    smooth_seconds: float = SMOOTH_SECONDS,
    enter: float = ENTER,
    leave: float | None = None,
    least_seconds: float = LEAST_SECONDS,
    gap_seconds: float = GAP_SECONDS,
) -> pd.DataFrame:
    """The episodes in rows of `faces`, by medium, track and time: the table `episodes`, with choices of your own.

    An emotion's episode begins (`start_s`, onset) where its probability, averaged over `smooth_seconds`, rises to `leave` on its way to
    `enter` or beyond, is strongest at `apex_s`, and ends (`end_s`, offset, the time of its last frame) where it falls below `leave`
    (by default .4, or `enter` where that is less) or another emotion reaches `enter` and leads. Shorter ones than `least_seconds` are left
    out, and shorter interruptions bridged. No episode reaches over a time out of view of more than `gap_seconds`. What is in no
    episode shows no emotion clearly.

    The terms are those of FACS (Ekman, Friesen and Hager 2002); why the defaults are what they are stands beside `ENTER` and the other
    constants in `batchemo.results.episodes` and `batchemo.analysis.smoothing`.

    `enter=0, leave=0, least_seconds=0` names the most probable emotion at every time. Raises UsageError.
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
    table = pd.DataFrame(found, columns=[*keys, *KINDS])
    return table.astype({**{key: faces[key].dtype for key in keys}, **KINDS})


def _on_track(times: NDArray[np.float64], values: NDArray[np.float64], labels: Sequence[str], rules: EpisodeRules) -> Iterator[Episode]:
    step_s = float(np.median(np.diff(times))) if len(times) > 1 else np.inf  # a single picture is long enough
    finder = EpisodeFinder(0, labels, rules, step_s=step_s)
    yield from finder.add(times, values)
    yield from finder.close()
