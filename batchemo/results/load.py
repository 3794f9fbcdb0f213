"""Loads tables of a results folder into pandas or pyarrow: needs neither torch nor a decoder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchemo.errors import UsageError, no_results, suggestion
from batchemo.results.schema import PER_MEDIUM, Table, with_missing_columns

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.dataset as ds

Place = str | os.PathLike[str]
Where = Sequence[tuple[str, str, Any]] | Sequence[Sequence[tuple[str, str, Any]]] | Any
"""As pyarrow's `filters`: a list of conditions (AND), a list of such lists (OR), or a `pyarrow.dataset` expression."""


def load(
    path: Place | Sequence[Place], *, table: Table = "faces", columns: Sequence[str] | None = None, where: Where | None = None
) -> pd.DataFrame:
    """A table of all media as a DataFrame.

    - `path`: a results folder, one Parquet file of it, or a list of these. A list adds a first column `results` that says which, because
      names of media may repeat between folders.
    - `columns`: the columns to read; all by default.
    - `where`: the rows to read, filtered while the files are read, which saves memory and time:
      `where=[("emotion", "==", "happy"), ("confidence", ">", 0.8)]`, operators `== != < <= > >= in not in`, or a pyarrow Expression.

    README lists the columns. Columns that a medium lacks, because weights with other labels or an older version analysed it, hold
    missing values (a single file is read as it is). Raises UsageError where there is nothing to read, or a column does not exist.
    """
    if isinstance(path, (str, os.PathLike)):
        return _load(Path(path), table, columns, where)
    import pandas as pd

    places = list(path)
    if not places:
        raise UsageError("load: the list of results folders is empty")
    if len({Path(place).resolve() for place in places}) < len(places):
        raise UsageError(f"load: one folder is given twice in {[str(place) for place in places]}")
    parts = [_load(Path(place), table, columns, where) for place in places]
    for place, part in zip(places, parts, strict=True):
        part.insert(0, "results", str(place))
    return pd.concat(parts, ignore_index=True)


def open_table(path: Place, *, table: Table = "faces") -> ds.Dataset:
    """A table of a results folder, or one Parquet file of it, as a `pyarrow.dataset`, for data larger than memory.

    Fragments are sorted by path. Raises UsageError where there is nothing to read.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds
    from pyarrow.fs import LocalFileSystem

    if table not in (*PER_MEDIUM, "media"):
        raise UsageError(f"no table {table!r}; {suggestion(str(table), (*PER_MEDIUM, 'media'))}")
    folder = Path(path)
    files = [folder] if folder.is_file() else list(table_files(folder, table))
    if not files:
        raise no_results(folder)
    try:
        factory = ds.FileSystemDatasetFactory(LocalFileSystem(), [os.fsdecode(file) for file in files], ds.ParquetFileFormat(), None)
        # The schema unites all files: labels may differ between media. So does the metadata, which is dropped.
        schema = factory.inspect().remove_metadata()
        found: ds.Dataset = factory.finish(schema if folder.is_file() else with_missing_columns(schema, _table_in(folder, table)))
    except (OSError, pa.ArrowException) as error:
        broken = _first_broken(files)
        message = f"{broken} is damaged, or no Parquet file" if broken else f"{folder}: {_first_line(error)}"
        raise UsageError(message) from error
    return found


def table_files(results: Path, table: Table) -> Iterator[Path]:
    """The Parquet files of a table, sorted."""
    if table == "media":
        yield from (path for path in (results / "media.parquet",) if path.is_file())
        return
    folder = results if _is_of_one_table(results, table) else results / table
    yield from sorted(path for path in folder.rglob("*.parquet") if path.is_file() and not path.name.startswith("."))


def _is_of_one_table(folder: Path, table: Table) -> bool:
    """Whether `folder` is that of one table, such as results/faces."""
    return table != "media" and folder.name in PER_MEDIUM and not (folder / table).is_dir()


def _table_in(folder: Path, table: Table) -> Table:
    """Which table the files hold that `table_files` finds."""
    return next(each for each in PER_MEDIUM if each == folder.name) if _is_of_one_table(folder, table) else table


def _load(path: Path, table: Table, columns: Sequence[str] | None, where: Where | None) -> pd.DataFrame:
    import pyarrow as pa

    source = open_table(path, table=table)
    names = source.schema.names
    for column in columns or ():
        if column not in names:
            raise UsageError(f"{path}: no column {column!r}; {suggestion(column, names)}")
    try:
        frame = _to_pandas(source.to_table(columns=columns, filter=_expression(where, names)))
    except (OSError, pa.ArrowException) as error:
        unknown = re.search(r"FieldRef\.Name\((.*?)\)", str(error))
        if unknown:
            raise UsageError(f"where: no column {unknown[1]!r}; {suggestion(unknown[1], names)}") from error
        culprit = path if where is None else f"where={where!r}"
        raise UsageError(f"{culprit}: {_first_line(error)}") from error
    return frame


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    """Integer columns with missing values become pandas' nullable integers, because floats do not hold all 64 bits."""
    import pandas as pd
    import pyarrow as pa

    frame: pd.DataFrame = table.to_pandas()
    nullable = {pa.int16(): pd.Int16Dtype(), pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.null_count and column.type in nullable:
            frame[name] = column.to_pandas(types_mapper=nullable.get)
    return frame


def _expression(where: Where | None, names: Sequence[str]) -> ds.Expression | None:
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    if isinstance(where, ds.Expression):
        return where
    if not where:
        return None
    if isinstance(where, tuple) and len(where) == 3 and isinstance(where[0], str):
        where = [where]
    try:
        for column, _, _ in [each for part in where for each in ([part] if isinstance(part, tuple) else part)]:
            if column not in names:
                raise UsageError(f"where: no column {column!r}; {suggestion(str(column), names)}")
        expression: ds.Expression = pq.filters_to_expression(where)
    except (TypeError, ValueError) as error:
        raise UsageError(f"where={where!r}: {error}; write it as where=[('emotion', '==', 'happy')]") from error
    return expression


def _first_broken(files: Sequence[Path]) -> Path | None:
    """The first of `files` that is no Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in files:
        try:
            pq.read_schema(file)
        except (OSError, pa.ArrowException):
            return file
    return None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
