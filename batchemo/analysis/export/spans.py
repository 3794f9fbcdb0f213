"""Converts episodes to time spans for video players and annotation tools: on the player's clock, to the end of the last frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from batchemo.results.catalog import MediumResults
from batchemo.results.load import load
from batchemo.results.paths import table_path

_SHORTEST_MS = 1
_ONLY_FRAME_MS = 40
"""Duration of the only frame of a video, which has no next one: 1/25 s."""


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """An episode in milliseconds of the player's clock; `start_ms` < `end_ms` <= the `start_ms` of the track's next one."""

    track_id: int
    emotion: str
    start_ms: int
    end_ms: int
    peak_probability: float


def read_spans(results: Path, medium: MediumResults) -> Iterator[Span]:
    """The episodes of a medium, sorted by time and track."""
    times = np.unique(load(table_path(results, "frames", medium.output), where=[("status", "==", "ok")])["time_s"].to_numpy(np.float64))
    step_ms = round(float(np.median(np.diff(times))) * 1000) if len(times) > 1 else _ONLY_FRAME_MS
    rows = load(table_path(results, "episodes", medium.output)).sort_values(["track_id", "start_s"])
    tracks, emotions, peaks = rows["track_id"].tolist(), rows["emotion"].tolist(), rows["peak_probability"].tolist()
    first_s = medium.row.starts_s or 0.0
    starts, ends = (((rows[name].to_numpy(np.float64) + first_s) * 1000).round().astype(int).tolist() for name in ("start_s", "end_s"))
    found = []
    for place, (track, start) in enumerate(zip(tracks, starts, strict=True)):
        end = ends[place] + step_ms
        if place + 1 < len(rows) and tracks[place + 1] == track:
            end = min(end, starts[place + 1])
        found.append(Span(track, emotions[place], start, max(end, start + _SHORTEST_MS), peaks[place]))
    yield from sorted(found, key=lambda span: (span.start_ms, span.track_id))
