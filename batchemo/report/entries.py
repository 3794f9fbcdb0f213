"""What stands in a results folder: each medium, whether done or failed, with its labels and its annotated copy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchemo.errors import UsageError, typed
from batchemo.records import MediaRow
from batchemo.tables import read_metadata, table_path

_NAMES = frozenset(field.name for field in dataclasses.fields(MediaRow))


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One medium. `output` and `labels` are empty where it has no tables, because it killed whatever read it.

    `annotated` is its annotated copy as a path below the results folder, empty where there is none.
    """

    row: MediaRow
    output: str = ""
    labels: tuple[str, ...] = ()
    uncertain_below: float = 0.5
    annotated: str = ""


def read_entries(results: Path) -> list[Entry]:
    """All media by name. Raises UsageError where `results` holds none."""
    rows = {row.media: row for row in _media_rows(results)}
    found = {}
    for path in sorted((results / "frames").rglob("*.parquet")):
        if path.name.startswith("."):
            continue
        metadata, values = read_metadata(path)
        if not values:
            continue
        row = _row(values)
        output = path.relative_to(results / "frames").as_posix().removesuffix(".parquet")
        found[row.media] = Entry(
            # That of `media.parquet` is newer where a later run gave the medium up.
            row=rows.get(row.media, row),
            output=output,
            labels=tuple(metadata.get("labels", ())),
            uncertain_below=float(metadata.get("options", {}).get("uncertain_below", 0.5)),
            annotated=_annotated(results, output),
        )
    entries = {name: Entry(row) for name, row in rows.items()} | found
    if not entries:
        raise UsageError(f"{results} holds no results; make some with: batchemo run INPUT --out {typed(results)}")
    return [entries[name] for name in sorted(entries)]


def _media_rows(results: Path) -> Iterator[MediaRow]:
    try:
        rows = pq.ParquetFile(table_path(results, "media")).read().to_pylist()
    except (OSError, pa.ArrowException):
        return
    yield from map(_row, rows)


def _row(values: dict[str, Any]) -> MediaRow:
    """Columns that another version of batchemo has written are passed over."""
    return MediaRow(**{name: value for name, value in values.items() if name in _NAMES})


def _annotated(results: Path, output: str) -> str:
    for suffix in (".mp4", ".jpg"):
        if (results / "annotated" / f"{output}{suffix}").is_file():
            return f"annotated/{output}{suffix}"
    return ""
