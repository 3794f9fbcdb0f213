"""The path of each file of a results folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from batchemo.records import MediaKind, Medium
from batchemo.results.schema import PER_MEDIUM, Table

_VIDEO_SUFFIX, _IMAGE_SUFFIX = ".mp4", ".jpg"
"""Of annotated copies."""


def table_path(results: Path, table: Table, output: str = "") -> Path:
    """The file of `table` for the medium with that output name; `media` is one file for all media."""
    return results / "media.parquet" if table == "media" else results / table / f"{output}.parquet"


def annotated_path(results: Path, output: str, kind: MediaKind) -> Path:
    """The annotated copy of a medium of that `kind`."""
    return results / "annotated" / f"{output}{_IMAGE_SUFFIX if kind == 'image' else _VIDEO_SUFFIX}"


def thumbnails_folder(results: Path, output: str) -> Path:
    """The folder of a medium's thumbnails, each named `<track_id>.jpg`."""
    return results / "report" / "thumbnails" / output


def files_of(results: Path, medium: Medium) -> list[Path]:
    """The tables and the annotated copy of a medium, whether they exist or not."""
    return [*(table_path(results, table, medium.output) for table in PER_MEDIUM), annotated_path(results, medium.output, medium.kind)]


def output_names(results: Path, folder: str) -> Iterator[str]:
    """The output names of the media with a file in `folder`, a table's name or `annotated`; sorted, without hidden files."""
    suffixes = (_VIDEO_SUFFIX, _IMAGE_SUFFIX) if folder == "annotated" else (".parquet",)
    for path in sorted((results / folder).rglob("*")):
        if path.suffix in suffixes and not path.name.startswith(".") and path.is_file():
            yield path.relative_to(results / folder).as_posix().removesuffix(path.suffix)
