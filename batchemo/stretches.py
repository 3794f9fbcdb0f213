"""From the rows of a timeline to what happened: the episodes of one emotion on each track."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchemo.errors import UsageError
from batchemo.rows import GAP_SECONDS, labels_of, track_keys, tracks_in, unbroken
from batchemo.smoothing import SMOOTH_SECONDS, moving_mean

ENTER = 0.5
"""An emotion begins where its smoothed probability reaches this: more probable than all others together, as with `--uncertain-below`."""

LEAVE = 0.4
"""It lasts, back to its onset and on to its offset, while its probability is at least this. Two thresholds (hysteresis; Schmitt 1938, for
edges in pictures Canny 1986) keep one expression whose probability hovers about a single threshold from falling into many."""

LEAST_SECONDS = 0.3
"""Shorter stretches are no episodes, and interruptions that are shorter do not end one. Between Ekman's longest micro-expression (1/5 s)
and shortest macro-expression (1/2 s)."""

KINDS = {"emotion": "str", "start_s": "f8", "apex_s": "f8", "end_s": "f8", "peak_probability": "f4", "n_frames": "i4"}
"""Columns of the table after those that say whose episode it is."""

_NOBODY = -1


@dataclasses.dataclass(frozen=True, slots=True)
class Episode:
    """One emotion on one track, from its first frame (onset) to its last (offset); at the apex its smoothed probability is highest."""

    track_id: int
    emotion: str
    start_s: float
    apex_s: float
    end_s: float
    peak_probability: float
    n_frames: int


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """What makes an episode; the constants of this module say where the defaults come from."""

    smooth_seconds: float = SMOOTH_SECONDS
    enter: float = ENTER
    leave: float | None = None
    least_seconds: float = LEAST_SECONDS
    gap_seconds: float = GAP_SECONDS

    @property
    def leaves(self) -> float:
        """`leave`, by default LEAVE, or `enter` where that is less."""
        return min(LEAVE, self.enter) if self.leave is None else self.leave

    def __post_init__(self) -> None:
        for name in ("smooth_seconds", "least_seconds", "gap_seconds"):
            if getattr(self, name) < 0:
                raise UsageError(f"episodes: {name}={getattr(self, name)} must not be negative")
        if not 0 <= self.leaves <= self.enter <= 1:
            raise UsageError(f"episodes: 0 <= leave <= enter <= 1 must hold, but leave={self.leaves} and enter={self.enter}")


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
    constants in `batchemo.stretches` and `batchemo.smoothing`.

    `enter=0, leave=0, least_seconds=0` names the most probable emotion at every time. Raises UsageError.
    """
    rules = Rules(smooth_seconds, enter, leave, least_seconds, gap_seconds)
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


def find_episodes(faces: pd.DataFrame, labels: Sequence[str], rules: Rules | None = None) -> list[Episode]:
    """Episodes of one medium's rows of `faces` (columns `track_id`, `time_s`, `p_<label>`), by track and time."""
    times = faces["time_s"].to_numpy(np.float64)
    values = faces[[f"p_{label}" for label in labels]].to_numpy(np.float64)
    found: list[Episode] = []
    for names, rows in tracks_in(faces, ["track_id"]):
        for episode in _on_track(times[rows], values[rows], labels, rules or Rules()):
            found.append(dataclasses.replace(episode, track_id=int(str(names["track_id"]))))
    return found


def _on_track(times: NDArray[np.float64], values: NDArray[np.float64], labels: Sequence[str], rules: Rules) -> Iterator[Episode]:
    """`values` N x labels at increasing `times`; a label whose values are missing never begins."""
    step = float(np.median(np.diff(times))) if len(times) > 1 else np.inf  # a single picture is long enough
    for part in unbroken(times, rules.gap_seconds):
        within = times[part]
        smoothed = moving_mean(within, np.nan_to_num(values[part], nan=0.0), rules.smooth_seconds)
        ends = np.append(within[1:], within[-1] + step)
        for stretch, label in _lasting(_hold(smoothed, rules.enter, rules.leaves), within, ends, rules.least_seconds):
            curve = smoothed[stretch, label]
            apex = int(curve.argmax())
            yield Episode(
                track_id=0,
                emotion=labels[label],
                start_s=float(within[stretch][0]),
                apex_s=float(within[stretch][apex]),
                end_s=float(within[stretch][-1]),
                peak_probability=float(curve[apex]),
                n_frames=len(curve),
            )


def _hold(smoothed: NDArray[np.float64], enter: float, leave: float) -> NDArray[np.intp]:
    """Which label holds at each row, or `_NOBODY`."""
    leading = smoothed.argmax(axis=1)
    entering = (smoothed[np.arange(len(smoothed)), leading] >= enter).tolist()
    held = np.full(len(smoothed), _NOBODY, np.intp)
    current = _NOBODY
    for row, (best, enters) in enumerate(zip(leading.tolist(), entering, strict=True)):
        if current != _NOBODY and smoothed[row, current] < leave:
            current = _NOBODY
        if enters and best != current:
            current = best
            # Back to the onset, as far as nothing else holds there.
            before = row
            while before > 0 and held[before - 1] == _NOBODY and smoothed[before - 1, current] >= leave:
                before -= 1
            held[before:row] = current
        held[row] = current
    return held


def _lasting(
    held: NDArray[np.intp], starts: NDArray[np.float64], ends: NDArray[np.float64], least_seconds: float
) -> Iterator[tuple[slice, int]]:
    """Runs of one label that are long enough, joined where less than that lies between; rows last from `starts` to `ends`."""
    borders = [0, *(np.flatnonzero(np.diff(held)) + 1).tolist(), len(held)]
    runs = [(a, b, int(held[a])) for a, b in itertools.pairwise(borders) if held[a] != _NOBODY]
    least = least_seconds - 1e-9
    runs = _joined(runs, starts, ends, least)
    runs = _joined([run for run in runs if ends[run[1] - 1] - starts[run[0]] >= least], starts, ends, least)
    for first, last, label in runs:
        yield slice(first, last), label


def _joined(
    runs: list[tuple[int, int, int]], starts: NDArray[np.float64], ends: NDArray[np.float64], least: float
) -> list[tuple[int, int, int]]:
    joined: list[tuple[int, int, int]] = []
    for first, last, label in runs:
        if joined and joined[-1][2] == label and starts[first] - ends[joined[-1][1] - 1] < least:
            joined[-1] = (joined[-1][0], last, label)
        else:
            joined.append((first, last, label))
    return joined
