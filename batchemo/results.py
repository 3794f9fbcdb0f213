"""Reading results: needs neither torch nor a decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batchemo.errors import UsageError, typed
from batchemo.tables import PER_MEDIUM, Table

if TYPE_CHECKING:
    import pandas as pd


def load(path: str | Path, *, table: Table = "faces", columns: Sequence[str] | None = None) -> pd.DataFrame:
    """One table of a results folder as a DataFrame, all media together; or one Parquet file of it. `columns` picks some.

    Columns are those that README lists; where weights with other labels made a part of the results, columns that a medium
    lacks are missing values. Raises UsageError where there is nothing to read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(path)
    if table not in (*PER_MEDIUM, "media"):
        raise UsageError(f"no table {table!r}; choose one of {', '.join((*PER_MEDIUM, 'media'))}")
    files = [folder] if folder.is_file() else list(table_files(folder, table))
    if not files:
        raise UsageError(f"{folder} holds no results; make some with: batchemo run INPUT --out {typed(folder)}")
    try:
        parts = [pq.ParquetFile(file).read(columns=columns) for file in files]
    except pa.ArrowException as error:
        raise UsageError(f"{folder}: not tables of batchemo ({error})") from error
    # Tables of media without faces still bring their columns; empty metadata keeps differing ones from clashing.
    frame: pd.DataFrame = pa.concat_tables([part.replace_schema_metadata() for part in parts], promote_options="default").to_pandas()
    return frame


def table_files(results: Path, table: Table) -> Iterator[Path]:
    """The Parquet files of a table, sorted."""
    if table == "media":
        yield from (path for path in (results / "media.parquet",) if path.is_file())
        return
    yield from sorted(path for path in (results / table).rglob("*.parquet") if path.is_file() and not path.name.startswith("."))
