"""Is tonight like other nights: each figure of a run against its range in the past runs of the same job.

The range is the median of the past runs, give or take 3.5 robust standard deviations (1.4826 times the median absolute deviation):
Iglewicz and Hoaglin (1993), How to Detect and Handle Outliers, chapter 3.3, call a value beyond that an outlier. Few values tell their
own deviation badly, so that below 20 runs it is more of them: as many as leave one in a hundred ordinary values outside. Nights that
were odd themselves hardly widen the range. Each figure has a floor below which a difference means nothing, however alike the nights
were, and is left out where a run has too little of it to tell. What is said of people needs many of them: one long film of a sad man
makes half of a small night sad. So the range has three standard errors of tonight's value, too, as if the people were drawn by lot.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from batchemo.jobs.history import RunFacts, RunRecord
from batchemo.options import RunOptions

_DEVIATIONS = 3.5
_DEVIATIONS_OF_FEW = (14.5, 8.1, 7.8, 5.9, 5.8, 5.0, 4.9, 4.4, 4.3, 4.1, 4.0, 3.9, 3.8, 3.7, 3.6)
"""For 5, 6, ... 19 runs: the 99th percentile of |value - median| / deviation in 800,000 draws of normal values each, which
`tests/jobs/test_drift.py` repeats with fewer."""

_LEAST_RUNS = 5
_RHYTHM = 2, 12
"""Nights as far out before, and one in how many, from which on a figure with a rhythm is usual: Sundays are one in seven."""
_MOST_RUNS = 30
"""A change that stays is the usual after half of them."""

_ERRORS = 3.0
_CONFIDENCE_SPREAD = 0.2
"""Standard deviation of the mean confidence of a track, in the real clips at hand."""

_LEAST_TRACKS, _LEAST_MEDIA, _LEAST_PICTURES, _LEAST_HOURS, _LEAST_WORK_SECONDS = 4, 10, 10, 1 / 60, 5.0

Figures = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class DriftMetric:
    """A figure that nights are compared by. `value` of a run's figures is None where they have too little to tell; `floor` is the
    least difference that counts, as it stands or, where `relative`, as a share of the median. One with a `rhythm` has another level on
    some days of the week; `spread` is the standard deviation between people where their mean has a value."""

    name: str
    text: str
    value: Callable[[Figures], float | None]
    floor: float
    relative: bool = False
    rhythm: bool = False
    spread: Callable[[float], float] | None = None
    style: Literal["share", "number"] = "number"

    def shown(self, value: float, *, more_digits: int = 0) -> str:
        if self.style == "share":
            return f"{value:.{more_digits}%}"
        return f"{value:,.{more_digits}f}" if abs(value) >= 10 else f"{value:.{2 + more_digits}g}"


@dataclasses.dataclass(frozen=True, slots=True)
class DriftFinding:
    """A figure beyond its range `low` to `high` around the `usual` value in `runs` past runs; `text` says so in a line."""

    figure: str
    value: float
    usual: float
    low: float
    high: float
    runs: int
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Drift:
    """What moved, compared with `runs` past runs; `note` says why there was nothing to compare with."""

    runs: int
    findings: tuple[DriftFinding, ...] = ()
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For run.json, under `drift`."""
        return dataclasses.asdict(self)


def find_drift(facts: RunFacts, past: Iterable[RunRecord]) -> Drift:
    """Compares a run with those of `past` that ended well and were of the same shard, weights, and options that shape results."""
    alike = [account.facts["figures"] for account in past if _is_comparable(account.facts, facts)][-_MOST_RUNS:]
    if len(alike) < _LEAST_RUNS:
        note = f"not compared with other runs yet: {len(alike)} of the {_LEAST_RUNS} it takes, with these weights and options, are there"
        return Drift(len(alike), note=note)
    found = (_finding(measure, facts["figures"], alike) for measure in _measures(facts["figures"], alike))
    return Drift(len(alike), tuple(finding for finding in found if finding is not None))


def usual_range(values: Sequence[float], *, floor: float) -> tuple[float, float, float]:
    """Median, and the least and greatest value that are not out of the ordinary, of at least five."""
    median = statistics.median(values)
    deviation = 1.4826 * statistics.median(abs(value - median) for value in values)
    few = len(values) - _LEAST_RUNS
    deviations = _DEVIATIONS_OF_FEW[few] if few < len(_DEVIATIONS_OF_FEW) else _DEVIATIONS
    width = max(deviations * deviation, floor)
    return median, median - width, median + width


def _finding(measure: DriftMetric, figures: Figures, past: Sequence[Figures]) -> DriftFinding | None:
    value = measure.value(figures)
    values = [found for found in map(measure.value, past) if found is not None]
    if value is None or len(values) < _LEAST_RUNS:
        return None
    middle = statistics.median(values)
    floor = measure.floor * abs(middle) if measure.relative else measure.floor
    if measure.spread is not None:
        floor = max(floor, _ERRORS * max(map(measure.spread, (value, middle))) / math.sqrt(figures["effective_tracks"]))
    usual, low, high = usual_range(values, floor=floor)
    if low <= value <= high or (measure.rhythm and _is_rhythm(value, usual, values)):
        return None
    low, high = max(low, 0.0), min(high, 1.0) if measure.style == "share" else high
    # Just beyond the range it must not look as if it were within.
    for digits in range(3):
        told, begin, end, typical = (measure.shown(each, more_digits=digits) for each in (value, low, high, usual))
        if told not in (begin, end):
            break
    text = f"{measure.text}: {told}, usually {typical} ({begin} to {end} in {len(values)} runs)"
    return DriftFinding(measure.name, value, usual, low, high, len(values), text)


def _is_rhythm(value: float, usual: float, past: Sequence[float]) -> bool:
    """Whether values as far from the usual one, on the same side, come back every so often."""
    alike = sum(other <= value if value < usual else other >= value for other in past)
    least, of = _RHYTHM
    return alike >= least and alike * of >= len(past)


def _is_comparable(other: RunFacts, facts: RunFacts) -> bool:
    if other.get("how") != "done" or "figures" not in other or other["run_id"] == facts["run_id"]:
        return False
    return _made_by(other) == _made_by(facts)


def _made_by(facts: RunFacts) -> tuple[Any, ...]:
    options = facts["options"]
    return (facts["weights"]["sha256"], options.get("shard"), *(options.get(name) for name in RunOptions().shaping()))


def _measures(figures: Figures, past: Sequence[Figures]) -> list[DriftMetric]:
    labels = {label: None for each in (figures, *past) for label in each["emotions"] or ()}
    of_people = functools.partial(DriftMetric, floor=0.05, spread=_of_share, style="share")
    return [
        DriftMetric("media", "media analysed", lambda f: float(f["media"]), floor=0.5, relative=True, rhythm=True),
        DriftMetric("faces_per_hour", "faces an hour of video", _faces_per_hour, floor=0.2, relative=True),
        DriftMetric("faces_per_picture", "faces a picture", _faces_per_picture, floor=0.2, relative=True),
        *(of_people(f"emotions.{label}", f"share of {label} faces", _share(label)) for label in labels),
        DriftMetric(
            "confidence", "mean confidence", _of_faces("confidence"), floor=0.03, spread=lambda _: _CONFIDENCE_SPREAD, style="share"
        ),
        of_people("uncertain", "share of uncertain faces", _of_faces("uncertain")),
        # One that fails is named; it is no drift.
        DriftMetric("failed", "share of failed media", _failed, floor=0.1, style="share"),
        # Times of the same work differ by 30 % on machines that others use too.
        DriftMetric("frames_per_second", "frames a second and process", _speed, floor=0.3, relative=True),
    ]


def _faces_per_hour(figures: Figures) -> float | None:
    hours: float = figures["hours"]
    return figures["work"]["video"]["faces"] / hours if hours >= _LEAST_HOURS else None


def _faces_per_picture(figures: Figures) -> float | None:
    pictures = figures["work"]["image"]
    return pictures["faces"] / pictures["media"] if pictures["media"] >= _LEAST_PICTURES else None


def _of_faces(name: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures[name] if figures.get("effective_tracks", 0) >= _LEAST_TRACKS else None


def _share(label: str) -> Callable[[Figures], float | None]:
    def share(figures: Figures) -> float | None:
        if not figures["emotions"] or figures.get("effective_tracks", 0) * (1 - figures["uncertain"]) < _LEAST_TRACKS:
            return None
        found: float = figures["emotions"].get(label, 0.0)
        return found

    return share


def _of_share(share: float) -> float:
    """Where each person is all one or all the other."""
    return math.sqrt(share * (1 - share))


def _failed(figures: Figures) -> float | None:
    return figures["failed"] / figures["media"] if figures["media"] >= _LEAST_MEDIA else None


def _speed(figures: Figures) -> float | None:
    seconds = sum(part["seconds"] for part in figures["work"].values())
    return figures["frames"] / seconds if seconds >= _LEAST_WORK_SECONDS else None
