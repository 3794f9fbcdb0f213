"""Summarizes results: counts, shares of emotions and a coarse timeline for each medium, and the total."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchemo.errors import UsageError, suggestion
from batchemo.results.load import load, open_table

STEPS = 24
"""Steps of a medium's timeline: as many as fit beside the other columns of the table."""

_NUMBERS = ("frames", "faces", "tracks", "duration_s", "uncertain")


@dataclasses.dataclass(frozen=True, slots=True)
class FaceCounts:
    """Counts of one medium, or of all. `shares`: each emotion's share of the faces that are not uncertain, 0 to 1."""

    frames: int
    faces: int
    tracks: int
    duration_s: float
    uncertain: int
    shares: dict[str, float]

    @property
    def leading(self) -> str:
        """The most frequent emotion; empty where no face is certain."""
        return max(self.shares, key=self.shares.__getitem__) if any(self.shares.values()) else ""


@dataclasses.dataclass(frozen=True, slots=True)
class EmotionTimeline:
    """A medium in equal steps of `step_s` seconds: the emotion with the highest mean probability over all faces of the step, and that
    mean; empty and 0 where no face is in view."""

    step_s: float
    emotions: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class MediumSummary:
    """Counts and timeline of one medium; `message` says why it failed."""

    media: str
    status: str
    message: str
    count: FaceCounts
    course: EmotionTimeline


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """All media, by name unless sorted otherwise, and the total."""

    media: tuple[MediumSummary, ...]
    total: FaceCounts

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def sorted_by(self, name: str) -> Summary:
        """The media by name (`media`), failed ones first (`status`), or from most to least of a number or of an emotion's share.

        Raises UsageError where `name` is none of these.
        """
        if name == "media":
            return self
        choices = ("media", "status", *_NUMBERS, *self.total.shares)
        if name not in choices:
            raise UsageError(f"--sort {name}: unknown; {suggestion(name, choices)}")

        def key(medium: MediumSummary) -> float:
            if name == "status":
                return -float(medium.status == "failed")
            count = medium.count
            return -float(getattr(count, name) if name in _NUMBERS else count.shares[name])

        return dataclasses.replace(self, media=tuple(sorted(self.media, key=key)))


def summarise(results: Path) -> Summary:
    """Summarizes all media, one table in memory at a time. Raises UsageError where there are no results."""
    rows = load(results, table="media").sort_values("media").to_dict("records")
    faces = open_table(results, table="faces")
    labels = [name.removeprefix("p_") for name in faces.schema.names if name.startswith("p_")]
    found = {str(row["media"]): _Tally(row, len(labels)) for row in rows}
    total = np.zeros(len(labels), np.int64)
    for name, times, uncertain, probabilities in _rows_by_medium(faces, labels):
        if name in found:
            found[name].add(times, uncertain, probabilities)
    for tally in found.values():
        total += tally.certain
    media = tuple(
        MediumSummary(str(row["media"]), str(row["status"]), str(row["message"]), tally.count(labels), tally.timeline(labels))
        for row, tally in zip(rows, found.values(), strict=True)
    )
    counts = [medium.count for medium in media]
    return Summary(
        media,
        FaceCounts(
            frames=sum(count.frames for count in counts),
            faces=sum(count.faces for count in counts),
            tracks=sum(count.tracks for count in counts),
            duration_s=sum(count.duration_s for count in counts),
            uncertain=sum(count.uncertain for count in counts),
            shares=_shares(total, labels),
        ),
    )


class _Tally:
    """Counts the rows of one medium as they come."""

    def __init__(self, row: dict[Any, Any], labels: int) -> None:
        self._row = row
        self._steps = max(1, min(STEPS, int(row["n_frames_analysed"]))) if row["duration_s"] > 0 else 1
        self._sums = np.zeros((self._steps, labels))
        self._faces = np.zeros(self._steps, np.int64)
        self._uncertain = 0
        self.certain = np.zeros(labels, np.int64)

    def add(self, times: NDArray[np.float64], uncertain: NDArray[np.bool_], probabilities: NDArray[np.float64]) -> None:
        length = float(self._row["duration_s"]) or 1.0
        # Rounding must not move a time on the border of a step into the one before.
        steps = np.clip((times / length * self._steps + 1e-6).astype(np.int64), 0, self._steps - 1)
        np.add.at(self._sums, steps, probabilities)
        self._faces += np.bincount(steps, minlength=self._steps)
        self._uncertain += int(uncertain.sum())
        self.certain += np.bincount(probabilities.argmax(axis=1)[~uncertain], minlength=len(self.certain))

    def count(self, labels: list[str]) -> FaceCounts:
        row = self._row
        return FaceCounts(
            frames=int(row["n_frames_analysed"]),
            faces=int(self._faces.sum()),
            tracks=int(row["n_tracks"]),
            duration_s=float(row["duration_s"]),
            uncertain=self._uncertain,
            shares=_shares(self.certain, labels),
        )

    def timeline(self, labels: list[str]) -> EmotionTimeline:
        means = self._sums / np.maximum(self._faces, 1)[:, None]
        leading = means.argmax(axis=1) if labels else np.zeros(self._steps, np.int64)
        seen = self._faces > 0
        return EmotionTimeline(
            step_s=float(self._row["duration_s"]) / self._steps,
            emotions=tuple(labels[best] if here else "" for best, here in zip(leading, seen, strict=True)),
            probabilities=tuple(round(float(means[i, best]), 4) if seen[i] else 0.0 for i, best in enumerate(leading)),
        )


def _rows_by_medium(faces: Any, labels: list[str]) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]]:
    """Yields, by medium: name, times (N), uncertain flags (N), probabilities (N x labels; 0 for labels that its weights lack)."""
    columns = ["media", "time_s", "uncertain", *(f"p_{label}" for label in labels)]
    for batch in faces.to_batches(columns=columns):
        if not batch.num_rows:
            continue
        names = batch.column("media").dictionary_encode()
        owners = names.indices.to_numpy()
        times = batch.column("time_s").to_numpy()
        uncertain = batch.column("uncertain").to_numpy(zero_copy_only=False)
        probabilities = np.nan_to_num(np.column_stack([_values(batch.column(f"p_{label}")) for label in labels]).astype(np.float64))
        for code, name in enumerate(names.dictionary.to_pylist()):
            own = owners == code
            yield str(name), times[own], uncertain[own], probabilities[own]


def _values(column: pa.Array) -> NDArray[np.float32]:
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _shares(certain: NDArray[np.int64], labels: list[str]) -> dict[str, float]:
    shares = certain / max(1, int(certain.sum()))
    return {label: float(share) for label, share in zip(labels, shares, strict=True)}
