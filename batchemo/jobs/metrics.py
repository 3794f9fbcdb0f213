"""Metrics of the media that one run analysed, by which runs of a job are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchemo.records import MediaRow, Medium
from batchemo.results.paths import table_path


def run_metrics(out: Path, media: Sequence[Medium], rows: Mapping[str, MediaRow], *, seconds: float) -> dict[str, Any]:
    """Counts, shares and times of `media`, whose `rows` by name the run made in `seconds` of wall time.

    - `emotions`: shares among the certain faces; `uncertain`: share among all faces; `confidence`: mean of all faces. None without faces.
    - `effective_tracks`: the number of tracks of equal length that would carry as much information, as faces of one track are alike.
    - `work`: media, bytes, faces and process seconds for each kind of medium; `hours`: length of the videos.
    """
    done = [(medium, rows[medium.name]) for medium in media if medium.name in rows]
    work = {kind: {"media": 0, "bytes": 0, "faces": 0, "seconds": 0.0} for kind in ("image", "video")}
    for medium, row in done:
        part = work[medium.kind]
        part["media"] += 1
        part["bytes"] += medium.size_bytes()
        part["faces"] += row.n_faces
        part["seconds"] = round(part["seconds"] + row.seconds_taken, 3)
    return {
        "media": len(done),
        "failed": sum(row.status == "failed" for _, row in done),
        "hours": sum(row.duration_s for medium, row in done if medium.kind == "video") / 3600,
        "frames": sum(row.n_frames_analysed for _, row in done),
        "faces": sum(row.n_faces for _, row in done),
        "tracks": sum(row.n_tracks for _, row in done),
        "effective_tracks": _effective_tracks([table_path(out, "tracks", medium.output) for medium, row in done if row.n_faces]),
        **_expressions([table_path(out, "faces", medium.output) for medium, row in done if row.n_faces]),
        "seconds": round(seconds, 3),
        "work": work,
    }


def _expressions(files: Sequence[Path]) -> dict[str, Any]:
    counts: dict[str, int] = {}
    faces = uncertain = 0
    confidence = 0.0
    for file in files:
        table = pq.ParquetFile(file)
        for label in table.schema_arrow.names:
            if label.startswith("p_"):
                counts.setdefault(label.removeprefix("p_"), 0)
        for batch in table.iter_batches(columns=["emotion", "confidence", "uncertain"]):
            faces += len(batch)
            uncertain += pc.sum(batch["uncertain"]).as_py()
            confidence += pc.sum(batch["confidence"]).as_py()
            for each in pc.value_counts(batch.filter(pc.invert(batch["uncertain"]))["emotion"]).to_pylist():
                counts[each["values"]] = counts.get(each["values"], 0) + each["counts"]
    certain = faces - uncertain
    return {
        "emotions": {label: count / certain for label, count in counts.items()} if certain else None,
        "confidence": confidence / faces if faces else None,
        "uncertain": uncertain / faces if faces else None,
    }


def _effective_tracks(files: Sequence[Path]) -> float:
    """Kish's effective sample size: each track weighs as much as it has faces."""
    lengths = [length for file in files for length in pq.read_table(file, columns=["n_frames"])["n_frames"].to_pylist()]
    return round(sum(lengths) ** 2 / sum(length**2 for length in lengths), 2) if lengths else 0.0
