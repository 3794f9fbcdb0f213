"""Drift: each metric of a run against its range in the past runs of the same job.

- The range is the median of the past runs, plus and minus 3.5 robust standard deviations (1.4826 times the median absolute deviation):
  Iglewicz and Hoaglin (1993), How to Detect and Handle Outliers, chapter 3.3, call a value beyond that an outlier. Unusual runs
  hardly widen it.
- Few values estimate their deviation badly. So below 20 runs the range is wider: one in a hundred ordinary values lies outside.
- Each metric has a floor, below which a difference is ignored. It is left out where a run has too few media, faces or seconds.
- Metrics of people need many people: one long video of a sad man makes half of a small run sad. So their range is at least three standard
  errors of a sample of independent people wide.
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
"""For 5, 6, ... 19 runs: the 99th percentile of |value - median| / deviation of normal values, as in `tests/jobs/test_drift.py`."""

_LEAST_RUNS = 5
_RHYTHM = 2, 12
"""A metric with a rhythm is usual from so many past runs as far out, if they are at least one in so many: Sundays are one in seven."""
_MOST_RUNS = 30
"""Past runs that are compared. A lasting change is usual after half of them."""

_ERRORS = 3.0
_CONFIDENCE_SPREAD = 0.2
"""Standard deviation of the mean confidence of a track; see docs/benchmarks.md."""

_LEAST_TRACKS, _LEAST_MEDIA, _LEAST_PICTURES, _LEAST_HOURS, _LEAST_WORK_SECONDS = 4, 10, 10, 1 / 60, 5.0

Figures = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class DriftMetric:
    """A metric that runs are compared by.

    - `value`: takes a run's figures; None where they hold too little.
    - `floor`: the least difference that counts; a share of the median where `relative`.
    - `rhythm`: the metric differs between days of the week.
    - `spread`: the standard deviation between people, as a function of their mean.
    """

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
    """A metric outside its range from `low` to `high` in `runs` past runs, whose median is `usual`; `text` says so in a line."""

    figure: str
    value: float
    usual: float
    low: float
    high: float
    runs: int
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Drift:
    """Findings of the comparison with `runs` past runs; `note` says why there was no comparison."""

    runs: int
    findings: tuple[DriftFinding, ...] = ()
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For run.json, under `drift`."""
        return dataclasses.asdict(self)


def find_drift(facts: RunFacts, past: Iterable[RunRecord]) -> Drift:
    """Compares a run with those of `past` that ended well and have the same shard, weights, and options that shape the tables."""
    alike = [record.facts["figures"] for record in past if _is_comparable(record.facts, facts)][-_MOST_RUNS:]
    if len(alike) < _LEAST_RUNS:
        note = f"not compared with other runs yet: {len(alike)} of the {_LEAST_RUNS} runs needed, with these weights and options, are there"
        return Drift(len(alike), note=note)
    found = (_finding(metric, facts["figures"], alike) for metric in _metrics(facts["figures"], alike))
    return Drift(len(alike), tuple(finding for finding in found if finding is not None))


def usual_range(values: Sequence[float], *, floor: float) -> tuple[float, float, float]:
    """Median, least and greatest usual value, of at least five `values`."""
    median = statistics.median(values)
    deviation = 1.4826 * statistics.median(abs(value - median) for value in values)
    few = len(values) - _LEAST_RUNS
    deviations = _DEVIATIONS_OF_FEW[few] if few < len(_DEVIATIONS_OF_FEW) else _DEVIATIONS
    width = max(deviations * deviation, floor)
    return median, median - width, median + width


def _finding(metric: DriftMetric, figures: Figures, past: Sequence[Figures]) -> DriftFinding | None:
    value = metric.value(figures)
    values = [found for found in map(metric.value, past) if found is not None]
    if value is None or len(values) < _LEAST_RUNS:
        return None
    middle = statistics.median(values)
    floor = metric.floor * abs(middle) if metric.relative else metric.floor
    if metric.spread is not None:
        floor = max(floor, _ERRORS * max(map(metric.spread, (value, middle))) / math.sqrt(figures["effective_tracks"]))
    usual, low, high = usual_range(values, floor=floor)
    if low <= value <= high or (metric.rhythm and _is_rhythm(value, usual, values)):
        return None
    low, high = max(low, 0.0), min(high, 1.0) if metric.style == "share" else high
    # A value just outside must not be rounded to the limit.
    for digits in range(3):
        shown, begin, end, typical = (metric.shown(each, more_digits=digits) for each in (value, low, high, usual))
        if shown not in (begin, end):
            break
    text = f"{metric.text}: {shown}, usually {typical} ({begin} to {end} in {len(values)} runs)"
    return DriftFinding(metric.name, value, usual, low, high, len(values), text)


def _is_rhythm(value: float, usual: float, past: Sequence[float]) -> bool:
    """Whether values as far from the usual one, on the same side, recur."""
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


def _metrics(figures: Figures, past: Sequence[Figures]) -> list[DriftMetric]:
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
        # A single failure is reported by name; it is no drift.
        DriftMetric("failed", "share of failed media", _failed, floor=0.1, style="share"),
        # The same work takes up to 30 % longer on shared machines; see docs/benchmarks.md.
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
    """The standard deviation where each person either shows the emotion in all frames or in none."""
    return math.sqrt(share * (1 - share))


def _failed(figures: Figures) -> float | None:
    return figures["failed"] / figures["media"] if figures["media"] >= _LEAST_MEDIA else None


def _speed(figures: Figures) -> float | None:
    seconds = sum(part["seconds"] for part in figures["work"].values())
    return figures["frames"] / seconds if seconds >= _LEAST_WORK_SECONDS else None
