"""Episodes as other programs want them: on the player's clock, and with the end of the last frame's showing, not its start."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from batchemo.results.load import load
from batchemo.results.schema import table_path

_SHORTEST_MS = 1
_STILL_MS = 40
"""Showing of the only frame of a video, which has no next one: a 25th of a second."""


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """An episode in whole milliseconds of the player's clock; `end_ms` is above `start_ms` and never beyond the track's next `start_ms`."""

    track_id: int
    emotion: str
    start_ms: int
    end_ms: int
    peak_probability: float


def spans_of(results: Path, output: str, row: dict[str, Any]) -> Iterator[Span]:
    """The episodes of the medium with that output name and row of `media`, by time and track."""
    times = np.unique(load(table_path(results, "frames", output), where=[("status", "==", "ok")])["time_s"].to_numpy(np.float64))
    step_ms = round(float(np.median(np.diff(times))) * 1000) if len(times) > 1 else _STILL_MS
    rows = load(table_path(results, "episodes", output)).sort_values(["track_id", "start_s"])
    tracks, emotions, peaks = rows["track_id"].tolist(), rows["emotion"].tolist(), rows["peak_probability"].tolist()
    first_s = row.get("starts_s") or 0.0
    starts, ends = (((rows[name].to_numpy(np.float64) + first_s) * 1000).round().astype(int).tolist() for name in ("start_s", "end_s"))
    found = []
    for place, (track, start) in enumerate(zip(tracks, starts, strict=True)):
        end = ends[place] + step_ms
        if place + 1 < len(rows) and tracks[place + 1] == track:
            end = min(end, starts[place + 1])
        found.append(Span(track, emotions[place], start, max(end, start + _SHORTEST_MS), peaks[place]))
    yield from sorted(found, key=lambda span: (span.start_ms, span.track_id))
