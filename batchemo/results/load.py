"""Reading results: needs neither torch nor a decoder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchemo.errors import UsageError, no_results, suggestion
from batchemo.results.schema import PER_MEDIUM, Table, read_metadata, with_lacking

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.dataset as ds

Place = str | os.PathLike[str]
Where = Sequence[tuple[str, str, Any]] | Sequence[Sequence[tuple[str, str, Any]]] | Any
"""As pyarrow's `filters`: tuples that all must hold, lists of such lists of which one must, or a `pyarrow.dataset` expression."""


def load(
    path: Place | Sequence[Place], *, table: Table = "faces", columns: Sequence[str] | None = None, where: Where | None = None
) -> pd.DataFrame:
    """One table of a results folder as a DataFrame, all media together; or one Parquet file of it; or several of these.

    `columns` picks some. `where` picks rows while the files are read, so that others cost neither memory nor much time:
    `where=[("emotion", "==", "happy"), ("confidence", ">", 0.8)]`, operators `== != < <= > >= in not in`, or a pyarrow Expression.
    From several folders (a list) there is a column `results` more, in front, that says which: names of media may be the same in them.

    Columns are those that README lists; those that a medium lacks, because weights with other labels or an older version analysed it, are
    missing values (a single file stays as it is). Raises UsageError where there is nothing to read, or a column does not exist.
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
    """A table of a results folder, or one Parquet file of it, as a `pyarrow.dataset`: what `load` reads, for what exceeds memory.

    Fragments come in the order of their paths. Raises UsageError where there is nothing to read.
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
        # Media without faces still bring their columns, and those of other labels theirs. Metadata differ from file to file.
        schema = factory.inspect().remove_metadata()
        found: ds.Dataset = factory.finish(schema if folder.is_file() else with_lacking(schema, _table_in(folder, table)))
    except (OSError, pa.ArrowException) as error:
        broken = _broken(files)
        told = f"{broken}: not a table of batchemo; it is damaged, or no Parquet file" if broken else f"{folder}: {_first_line(error)}"
        raise UsageError(told) from error
    return found


def table_files(results: Path, table: Table) -> Iterator[Path]:
    """The Parquet files of a table, sorted."""
    if table == "media":
        yield from (path for path in (results / "media.parquet",) if path.is_file())
        return
    folder = results if _is_of_one_table(results, table) else results / table
    yield from sorted(path for path in folder.rglob("*.parquet") if path.is_file() and not path.name.startswith("."))


def _is_of_one_table(folder: Path, table: Table) -> bool:
    """Whether `folder`, such as results/faces, stands for itself."""
    return table != "media" and folder.name in PER_MEDIUM and not (folder / table).is_dir()


def _table_in(folder: Path, table: Table) -> Table:
    """What the files are that `table_files` finds."""
    return next(each for each in PER_MEDIUM if each == folder.name) if _is_of_one_table(folder, table) else table


def analysed_media(results: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The output name of each medium (its tables are `<table>/<output name>.parquet`), and its row of `media.parquet`."""
    for file in table_files(results, "frames"):
        _, row = read_metadata(file)
        if row:
            yield file.relative_to(results / "frames").as_posix().removesuffix(".parquet"), row


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
        told = f"{path}: " if where is None else f"where={where!r}: "
        raise UsageError(f"{told}{_first_line(error)}") from error
    return frame


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    """Whole numbers of which some are missing become pandas' nullable ones, since floats do not hold all of 64 bits."""
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


def _broken(files: Sequence[Path]) -> Path | None:
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
