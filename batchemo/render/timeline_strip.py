"""Draws the strip below a video: the emotions of each track over time, and a cursor at the current frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchemo.palette import PANEL, QUIET, TROUGH, WHITE, Colour, colours
from batchemo.render.layout import PixelBox, Sizes
from batchemo.render.text import blend, readable_label, render_text

MAX_STRIP_TRACKS = 5
"""The longest tracks only, to leave room for the picture."""

_FADE = 0.55
"""How far colours fade into the background where the emotion is uncertain."""


@dataclasses.dataclass(frozen=True, slots=True)
class TrackTimeline:
    """Mean probabilities of one track over time: float64 bins x classes; NaN where it is absent."""

    track_id: int
    probabilities: NDArray[np.float64]


class TimelineStrip:
    """The strip below frames of `width` x `height` px, for times from 0 to `end_s`."""

    def __init__(
        self, timelines: Sequence[TrackTimeline], labels: Sequence[str], *, width: int, height: int, end_s: float, uncertain_below: float
    ) -> None:
        self._end_s = end_s
        sizes = Sizes.from_picture(PixelBox(0, 0, width, height)).smaller
        self._line = sizes.line
        names = [f"#{timeline.track_id}" for timeline in timelines]
        row, pad = sizes.row, sizes.chart_pad
        left = 2 * pad + max((render_text(name, sizes.chart_text).shape[1] for name in names), default=0)
        self._left, self._right = left, max(left + 1, width - pad)
        rows = max(1, len(timelines)) * row
        legend = _draw_legend(_legend_entries(timelines, labels, uncertain_below), width=max(0, width - 2 * pad), sizes=sizes)
        total = rows + legend.shape[0] + 3 * pad
        self._picture = np.empty((total + total % 2, width + width % 2, 3), np.uint8)
        self._picture[:] = PANEL
        self._top, self._bottom = pad, pad + rows
        for number, (name, timeline) in enumerate(zip(names, timelines, strict=True)):
            top = pad + number * row
            text = render_text(name, sizes.chart_text)
            blend(self._picture, text, pad, top + (row - text.shape[0]) // 2, QUIET)
            bar = _draw_bar(timeline.probabilities, colours(labels), self._right - left, uncertain_below)
            room = self._picture[top + 1 : top + row - 1, left : self._right]
            room[:] = bar[None, : room.shape[1]]
        self._picture[2 * pad + rows : 2 * pad + rows + legend.shape[0], pad : pad + legend.shape[1]] = legend

    @property
    def height(self) -> int:
        """In px; even, because of chroma subsampling."""
        return len(self._picture)

    def render_at(self, time_s: float) -> NDArray[np.uint8]:
        """The strip with its cursor at `time_s`, RGB uint8 H x W x 3 with even sides."""
        picture = self._picture.copy()
        share = min(max(time_s / self._end_s, 0.0), 1.0) if self._end_s > 0 else 0.0
        at = self._left + round(share * (self._right - self._left - 1))
        line = picture[self._top - 1 : self._bottom + 1]
        line[:, max(0, at - self._line) : at + self._line] = PANEL
        line[:, at - self._line // 2 : at + max(1, self._line // 2)] = WHITE
        return picture


def read_track_timelines(faces: Path, labels: Sequence[str], *, bins: int, end_s: float) -> list[TrackTimeline]:
    """Timelines of the longest tracks, sorted by number. Reads the faces table one row group at a time."""
    file = pq.ParquetFile(faces)
    counts: dict[int, int] = {}
    for group in range(file.num_row_groups):
        ids = file.read_row_group(group, columns=["track_id"])["track_id"]
        for found in pc.value_counts(ids).to_pylist():
            counts[found["values"]] = counts.get(found["values"], 0) + found["counts"]
    longest = sorted(sorted(counts, key=lambda track: (-counts[track], track))[:MAX_STRIP_TRACKS])
    sums = {track: np.zeros((bins, len(labels))) for track in longest}
    counts_by_bin = {track: np.zeros(bins) for track in longest}
    for group in range(file.num_row_groups):
        rows = file.read_row_group(group, columns=["time_s", "track_id", *(f"p_{label}" for label in labels)])
        for track in longest:
            own = rows.filter(pc.equal(rows["track_id"], pa.scalar(track, pa.int32())))
            places = (own["time_s"].to_numpy() / max(end_s, 1e-9) * bins).astype(int).clip(0, bins - 1)
            np.add.at(sums[track], places, np.stack([own[f"p_{label}"].to_numpy() for label in labels], axis=1))
            np.add.at(counts_by_bin[track], places, 1)
    with np.errstate(invalid="ignore"):
        return [TrackTimeline(track, sums[track] / counts_by_bin[track][:, None]) for track in longest]


def _best_labels(probabilities: NDArray[np.float64]) -> NDArray[np.intp]:
    """The most probable label of each bin, -1 where there is none."""
    return np.where(np.isnan(probabilities[:, 0]), -1, np.nan_to_num(probabilities).argmax(axis=1))


def _draw_bar(probabilities: NDArray[np.float64], palette: Sequence[Colour], width: int, uncertain_below: float) -> NDArray[np.uint8]:
    """One line of `width` pixels, bins stretched over it."""
    best = _best_labels(probabilities)
    drawn = np.array([*palette, TROUGH], np.float64)[best]
    uncertain = (best >= 0) & (np.nan_to_num(probabilities).max(axis=1) < uncertain_below)
    drawn[uncertain] += (np.array(PANEL) - drawn[uncertain]) * _FADE
    return drawn.round().astype(np.uint8)[np.arange(width) * len(best) // width]


def _legend_entries(timelines: Sequence[TrackTimeline], labels: Sequence[str], uncertain_below: float) -> list[tuple[str, Colour]]:
    """Names and colours that the legend shows."""
    used = {int(best) for timeline in timelines for best in _best_labels(timeline.probabilities) if best >= 0}
    entries = [(readable_label(labels[at]), colours(labels)[at]) for at in sorted(used)]
    uncertain = any(
        (timeline.probabilities[_best_labels(timeline.probabilities) >= 0].max(axis=1) < uncertain_below).any() for timeline in timelines
    )
    return [*entries, ("dark: uncertain", TROUGH)] if uncertain else entries


def _draw_legend(entries: Sequence[tuple[str, Colour]], *, width: int, sizes: Sizes) -> NDArray[np.uint8]:
    """Colours and their names, on as many lines as needed."""
    pad, side = sizes.chart_pad, sizes.row
    lines: list[list[NDArray[np.uint8]]] = [[]]
    room = width
    for name, colour in entries:
        text = render_text(name, sizes.chart_text)
        entry = np.empty((side, side + text.shape[1] + 2 * pad, 3), np.uint8)
        entry[:] = PANEL
        square = round(0.7 * sizes.chart_text)
        top = (side - square) // 2
        entry[top : top + square, :square] = colour
        blend(entry, text, square + pad // 2, max(0, (side - text.shape[0]) // 2), QUIET)
        if entry.shape[1] > room and lines[-1]:
            lines.append([])
            room = width
        lines[-1].append(entry[:, :width])
        room -= entry.shape[1]
    legend = np.empty((side * len(lines), width, 3), np.uint8)
    legend[:] = PANEL
    for number, line in enumerate(lines):
        whole = np.concatenate(line, axis=1) if line else legend[:0, :0]
        legend[number * side : number * side + whole.shape[0], : whole.shape[1]] = whole
    return legend
