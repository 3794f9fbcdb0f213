"""What a results folder holds of each medium, as the files say that appear last: needs neither torch nor a decoder."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from batchemo.records import MediaRow
from batchemo.results.schema import PER_MEDIUM, read_metadata, table_path, thumbnails_folder

ANNOTATED_SUFFIXES = (".mp4", ".jpg")


@dataclasses.dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A medium whose table `frames` is there: its output name, its row, the metadata of that table, the style that its annotated copy
    was drawn in, None where none was, and the processors that its probabilities were computed on, where that was stored."""

    output: str
    row: MediaRow
    metadata: dict[str, Any]
    style: dict[str, Any] | None = None
    processors: tuple[str, ...] = ()


def read_catalog(results: Path) -> Iterator[CatalogEntry]:
    """All media below `results` that were analysed, failed ones among them; tables that are not whole are passed over."""
    for output in outputs(results, "frames", suffixes=(".parquet",)):
        entry = read_catalog_entry(results, output)
        if entry is not None:
            yield entry


def read_catalog_entry(results: Path, output: str) -> CatalogEntry | None:
    """None where the table is not there or not whole."""
    metadata, values = read_metadata(table_path(results, "frames", output))
    row = row_from(values)
    return None if row is None else CatalogEntry(output, row, metadata, values.get("style"), tuple(values.get("processors", ())))


def row_from(values: dict[str, Any]) -> MediaRow | None:
    """A row as it was stored, perhaps by another version: what is not known is left out. None where it is no row."""
    known = {field.name: values[field.name] for field in dataclasses.fields(MediaRow) if field.name in values}
    try:
        return MediaRow(**known)
    except TypeError:
        return None


def is_vanished(row: MediaRow, inputs: Sequence[Path]) -> bool:
    """Whether a medium that was below one of the folders `inputs` is not there any more."""
    path = source_of(row)
    return not os.path.lexists(path) and any(path.is_relative_to(os.path.realpath(root)) for root in inputs)


def is_perhaps_unmounted(row: MediaRow) -> bool:
    """Whether the nearest folder above a vanished medium that is there is empty, as that of a drive is which is not mounted."""
    folder = next(folder for folder in source_of(row).parents if folder.is_dir())
    return not any(folder.iterdir())


def remove_results(results: Path, output: str) -> None:
    """Removes the tables, the annotated copy and the thumbnails of a medium, its mark of being done first, and folders that are then
    empty."""
    places = [("frames", ".parquet"), *((table, ".parquet") for table in PER_MEDIUM), *(("annotated", each) for each in ANNOTATED_SUFFIXES)]
    for place, suffix in places:
        path = results / place / f"{output}{suffix}"
        path.unlink(missing_ok=True)
        for folder in path.parents[: len(Path(output).parts) - 1]:
            with contextlib.suppress(OSError):
                folder.rmdir()
    shutil.rmtree(thumbnails_folder(results, output), ignore_errors=True)


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
