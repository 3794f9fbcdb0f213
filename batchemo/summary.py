"""The first answers that results give: how many, who, and which emotions, by medium and in total."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd

from batchemo.results import load


@dataclasses.dataclass(frozen=True, slots=True)
class Count:
    """Figures of one medium, or of all. `shares` is each emotion's share of the faces that are not uncertain, 0 to 1."""

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
class MediumSummary:
    media: str
    status: str
    message: str
    count: Count


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """All media by name, and the total."""

    media: tuple[MediumSummary, ...]
    total: Count

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def summarise(results: Path) -> Summary:
    """Raises UsageError where `results` holds none."""
    rows = load(results, table="media").sort_values("media")
    faces = load(results, columns=["media", "emotion", "uncertain"])
    by_medium = dict(tuple(faces.groupby("media")))
    empty = faces.iloc[:0]
    labels = [column.removeprefix("share_") for column in load(results, table="tracks").columns if column.startswith("share_")]
    media = tuple(
        MediumSummary(row["media"], row["status"], row["message"], _count(row, by_medium.get(row["media"], empty), labels))
        for row in rows.to_dict("records")
    )
    total = {
        "n_frames_analysed": rows["n_frames_analysed"].sum(),
        "n_tracks": rows["n_tracks"].sum(),
        "duration_s": rows["duration_s"].sum(),
    }
    return Summary(media, _count(total, faces, labels))


def _count(row: dict[Any, Any], faces: pd.DataFrame, labels: list[str]) -> Count:
    certain = faces.loc[~faces["uncertain"], "emotion"].value_counts(normalize=True)
    return Count(
        frames=int(row["n_frames_analysed"]),
        faces=len(faces),
        tracks=int(row["n_tracks"]),
        duration_s=float(row["duration_s"]),
        uncertain=int(faces["uncertain"].sum()),
        shares={label: float(certain.get(label, 0.0)) for label in labels},
    )
