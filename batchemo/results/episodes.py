"""Finds the episodes of a track as its rows arrive, in constant memory. `analysis.episodes` applies it to DataFrames."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from batchemo.errors import UsageError

SMOOTH_SECONDS = 0.5
"""Width of the moving average. Macro-expressions last 0.5 to 4 s (Ekman 2003, *Emotions Revealed*), so shorter changes are mostly the
noise of single frames. Micro-expressions (1/25 to 1/5 s by Ekman; below 0.5 s in Yan et al. 2013, *Journal of Nonverbal Behavior* 37)
are averaged away: to find them, use a width of about 0.1 s and analyse every frame of a high-speed camera."""

GAP_SECONDS = 0.5
"""Longest time out of view that an episode may contain: a nod or a hand before the face, shorter than a macro-expression (0.5 s: Ekman
2003, *Emotions Revealed*)."""

GAP_STEPS = 1.5
"""In sparse rows (`--sample-fps 1`) a gap is a step of more than this many median steps."""

ENTER = 0.5
"""An episode begins where the smoothed probability reaches this: more than all others together, as with `--uncertain-below`."""

LEAVE = 0.4
"""From onset to offset the probability is at least this. Two thresholds (hysteresis: Schmitt 1938; for edges Canny 1986) keep an
expression whose probability hovers about one threshold from breaking into many episodes."""

LEAST_SECONDS = 0.3
"""Shorter intervals are no episodes, and shorter interruptions do not end one. Between Ekman's longest micro-expression (1/5 s) and
shortest macro-expression (1/2 s)."""

_NONE = -1
"""Instead of a label's index: no emotion holds."""
_BLOCK_ROWS = 2048
"""Rows that are averaged at once, counted from where the track comes into view: the sums do not depend on the size of batches."""


@dataclasses.dataclass(frozen=True, slots=True)
class Episode:
    """One emotion on one track, from onset (`start_s`) to offset (`end_s`); at the apex its smoothed probability is highest."""

    track_id: int
    emotion: str
    start_s: float
    apex_s: float
    end_s: float
    peak_probability: float
    n_frames: int


@dataclasses.dataclass(frozen=True, slots=True)
class EpisodeRules:
    """Thresholds and durations that define an episode; the constants of this module give the sources of the defaults."""

    smooth_seconds: float = SMOOTH_SECONDS
    enter: float = ENTER
    leave: float | None = None
    least_seconds: float = LEAST_SECONDS
    gap_seconds: float = GAP_SECONDS

    @property
    def leaves(self) -> float:
        """`leave`; by default the lesser of LEAVE and `enter`."""
        return min(LEAVE, self.enter) if self.leave is None else self.leave

    def __post_init__(self) -> None:
        for name in ("smooth_seconds", "least_seconds", "gap_seconds"):
            if getattr(self, name) < 0:
                raise UsageError(f"episodes: {name}={getattr(self, name)} must not be negative")
        if not 0 <= self.leaves <= self.enter <= 1:
            raise UsageError(f"episodes: 0 <= leave <= enter <= 1 must hold, but leave={self.leaves} and enter={self.enter}")


@dataclasses.dataclass(frozen=True, slots=True)
class _Run:
    """Rows `first` up to `stop` (exclusive), at `start_s` to `last_s`, in which one label holds; the next row is at `end_s`."""

    label: int
    first: int
    stop: int
    start_s: float
    last_s: float
    end_s: float
    peak: float
    apex_s: float

    def joined(self, later: _Run) -> _Run:
        """This run, `later`, and all between as one."""
        best = later if later.peak > self.peak else self
        return _Run(self.label, self.first, later.stop, self.start_s, later.last_s, later.end_s, best.peak, best.apex_s)


def moving_mean(times: NDArray[np.float64], values: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """Means of `values` (N x K) over all rows within `seconds` / 2 of each of the increasing `times` (N)."""
    first = np.searchsorted(times, times - seconds / 2 - 1e-9, side="left")
    last = np.searchsorted(times, times + seconds / 2 + 1e-9, side="right")
    sums = np.vstack([np.zeros(values.shape[1]), np.cumsum(values, axis=0)])
    return np.asarray((sums[last] - sums[first]) / (last - first)[:, None])


def longest_step(usual_s: float, gap_seconds: float) -> float:
    """Seconds between two rows of a track beyond which it was out of view; `usual_s` is its median step."""
    return max(gap_seconds, GAP_STEPS * usual_s) + 1e-9


class EpisodeFinder:
    """Finds the episodes of the track `track_id`, whose median step between rows is `step_s` (infinite for a single row)."""

    _times: NDArray[np.float64]
    _values: NDArray[np.float64]

    def __init__(self, track_id: int, labels: Sequence[str], rules: EpisodeRules, *, step_s: float) -> None:
        self._track_id = track_id
        self._labels = labels
        self._rules = rules
        self._step_s = step_s
        self._longest_s = longest_step(step_s, rules.gap_seconds)
        self._begin()

    def add(self, times: NDArray[np.float64], values: NDArray[np.float64]) -> Iterator[Episode]:
        """Adds N rows at increasing `times`; `values` are N x labels. A label whose values are missing (NaN) has no episodes."""
        times = np.concatenate([self._times, times])
        values = np.concatenate([self._values, np.nan_to_num(values, nan=0.0)])
        borders = [0, *(np.flatnonzero(np.diff(times) > self._longest_s) + 1).tolist(), len(times)]
        for start, end in itertools.pairwise(borders):
            if start:
                yield from self.close()
            self._times, self._values = times[start:end], values[start:end]
            yield from self._average(whole=False)

    def is_over(self, now_s: float) -> bool:
        """Whether the track is out of view at `now_s`, so that `close` may be called."""
        return bool(len(self._times) and now_s - self._times[-1] > self._longest_s)

    def close(self) -> Iterator[Episode]:
        """Yields the remaining episodes; the track is out of view."""
        yield from self._average(whole=True)
        if self._open is not None:
            yield from self._ended(self._open, self._open.last_s + self._step_s)
        yield from self._kept(self._joining)
        if self._last is not None:
            yield self._episode(self._last)
        self._begin()

    def _begin(self) -> None:
        """Resets the state: the track comes into view."""
        self._times, self._values = np.empty(0), np.empty((0, len(self._labels)))
        self._averaged = 0  # rows of `_times` that are averaged; later averages need them
        self._row = 0  # number of the next row since the track came into view
        self._open: _Run | None = None
        self._onsets: dict[int, _Run] = {}  # by label: the latest rows that belong to its episode if it enters next
        self._joining: _Run | None = None
        self._last: _Run | None = None

    def _average(self, *, whole: bool) -> Iterator[Episode]:
        """Averages all complete blocks; `whole`: also the last one, as no more rows come."""
        half_s = self._rules.smooth_seconds / 2 + 1e-9
        while self._averaged < len(self._times):
            start, end = self._averaged, min(self._averaged + _BLOCK_ROWS, len(self._times))
            if not whole and (end - start < _BLOCK_ROWS or self._times[-1] <= self._times[end - 1] + half_s):
                return
            first, last = np.searchsorted(self._times, [self._times[start] - half_s, self._times[end - 1] + half_s], side="left")
            smoothed = moving_mean(self._times[first : last + 1], self._values[first : last + 1], self._rules.smooth_seconds)
            yield from self._hold(self._times[start:end], smoothed[start - first : end - first])
            kept = int(np.searchsorted(self._times, self._times[end - 1] - self._rules.smooth_seconds - 1e-6))
            self._times, self._values, self._averaged = self._times[kept:], self._values[kept:], end - kept

    def _hold(self, times: NDArray[np.float64], smoothed: NDArray[np.float64]) -> Iterator[Episode]:
        """Finds the runs in the next rows, whose averages are `smoothed`."""
        current = _NONE if self._open is None else self._open.label
        held = _holding(smoothed, self._rules.enter, self._rules.leaves, current)
        borders = [0, *(np.flatnonzero(np.diff(held)) + 1).tolist(), len(held)]
        onsets, self._onsets = self._onsets, {}
        for first, stop in itertools.pairwise(borders):
            label = int(held[first])
            if first == 0 and self._open is not None and label != self._open.label:
                yield from self._ended(self._open, float(times[0]))
            if label == _NONE:
                self._onsets = self._rising(times, smoothed, first, onsets) if stop == len(held) else {}
                continue
            run = self._run(label, times, smoothed, first, stop)
            before = self._open or onsets.get(label) if first == 0 else None
            run = run if before is None else before.joined(run)
            self._open = run
            if stop < len(held):
                yield from self._ended(run, float(times[stop]))
        self._row += len(times)

    def _run(self, label: int, times: NDArray[np.float64], smoothed: NDArray[np.float64], first: int, stop: int) -> _Run:
        curve = smoothed[first:stop, label]
        apex = int(curve.argmax())
        last_s = float(times[stop - 1])
        return _Run(
            label,
            self._row + first,
            self._row + stop,
            float(times[first]),
            last_s,
            last_s,
            float(curve[apex]),
            float(times[first + apex]),
        )

    def _rising(self, times: NDArray[np.float64], smoothed: NDArray[np.float64], free: int, before: dict[int, _Run]) -> dict[int, _Run]:
        """The run of each label that is at least `leave` up to the last row; it begins at row `free` at the earliest."""
        low = smoothed[free:] < self._rules.leaves
        rising = {}
        for label in np.flatnonzero(~low[-1]).tolist():
            lows = np.flatnonzero(low[:, label])
            first = free + int(lows[-1]) + 1 if len(lows) else free
            run = self._run(label, times, smoothed, first, len(times))
            rising[label] = before[label].joined(run) if first == 0 and label in before else run
        return rising

    def _ended(self, run: _Run, end_s: float) -> Iterator[Episode]:
        """Ends a run at `end_s`, and joins it with the one before if the interruption is short."""
        self._open = None
        run = dataclasses.replace(run, end_s=end_s)
        if self._joining is not None and self._follows(self._joining, run):
            self._joining = self._joining.joined(run)
            return
        yield from self._kept(self._joining)
        self._joining = run

    def _kept(self, run: _Run | None) -> Iterator[Episode]:
        """Drops a run that is too short, and joins runs that only dropped ones separated."""
        if run is None or run.end_s - run.start_s < self._rules.least_seconds - 1e-9:
            return
        if self._last is not None and self._follows(self._last, run):
            self._last = self._last.joined(run)
            return
        if self._last is not None:
            yield self._episode(self._last)
        self._last = run

    def _follows(self, run: _Run, later: _Run) -> bool:
        return run.label == later.label and later.start_s - run.end_s < self._rules.least_seconds - 1e-9

    def _episode(self, run: _Run) -> Episode:
        emotion = self._labels[run.label]
        return Episode(self._track_id, emotion, run.start_s, run.apex_s, run.last_s, run.peak, run.stop - run.first)


def _holding(smoothed: NDArray[np.float64], enter: float, leave: float, current: int) -> NDArray[np.intp]:
    """Index of the label that holds at each row, or `_NONE`; `current` holds before the first row."""
    leading = smoothed.argmax(axis=1)
    entering = (smoothed[np.arange(len(smoothed)), leading] >= enter).tolist()
    held = np.full(len(smoothed), _NONE, np.intp)
    for row, (best, enters) in enumerate(zip(leading.tolist(), entering, strict=True)):
        if current != _NONE and smoothed[row, current] < leave:
            current = _NONE
        if enters and best != current:
            current = best
            # Back to the onset, as far as no other label holds.
            before = row
            while before > 0 and held[before - 1] == _NONE and smoothed[before - 1, current] >= leave:
                before -= 1
            held[before:row] = current
        held[row] = current
    return held
