"""What a results folder holds of each medium, as the files say that appear last: needs neither torch nor a decoder."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchemo.records import MediaRow
from batchemo.tables import read_metadata, table_path

ANNOTATED_SUFFIXES = (".mp4", ".jpg")


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A medium whose table `frames` is there: its output name, its row, and the metadata of that table."""

    output: str
    row: MediaRow
    metadata: dict[str, Any]


def read_inventory(results: Path) -> Iterator[Entry]:
    """All media below `results` that were analysed, failed ones among them; tables that are not whole are passed over."""
    for output in outputs(results, "frames", suffixes=(".parquet",)):
        entry = read_entry(results, output)
        if entry is not None:
            yield entry


def read_entry(results: Path, output: str) -> Entry | None:
    """None where the table is not there or not whole."""
    metadata, values = read_metadata(table_path(results, "frames", output))
    return Entry(output, MediaRow(**values), metadata) if values else None


def outputs(results: Path, place: str, *, suffixes: tuple[str, ...]) -> Iterator[str]:
    """The output names of the files below `place`, sorted; hidden files are not among them."""
    folder = results / place
    for path in sorted(folder.rglob("*")):
        if path.suffix in suffixes and not path.name.startswith(".") and path.is_file():
            yield path.relative_to(folder).as_posix().removesuffix(path.suffix)


def source_of(row: MediaRow) -> Path:
    """The medium's file. Its path stands in the tables as text, where bytes that are not UTF-8 are `\\xff`."""
    written = Path(row.path)
    if os.path.lexists(written):
        return written
    raw = Path(re.sub(r"\\x([89a-f][0-9a-f])", lambda found: chr(0xDC00 + int(found[1], 16)), row.path))
    return raw if os.path.lexists(raw) else written
