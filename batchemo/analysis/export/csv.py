"""CSV for spreadsheets, R and SPSS: one file a table, all media together."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from batchemo.atomic import replacing
from batchemo.results.load import open_table
from batchemo.results.schema import Table


def write_csv(results: Path, table: Table, path: Path) -> None:
    """Reads the table part by part, so that it may be larger than memory.

    Texts that begin with one of `= + - @` get an apostrophe in front: spreadsheets would run them as formulas, and names of files may be
    anybody's.
    """
    source = open_table(results, table=table)
    with replacing(path) as temporary, pyarrow.csv.CSVWriter(str(temporary), source.schema) as writer:
        for batch in source.to_batches():
            if batch.num_rows:
                writer.write_batch(pa.record_batch([_harmless(column) for column in batch.columns], schema=batch.schema))


def _harmless(column: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(column, r"\A([=+\-@\t\r])", r"'\1") if pa.types.is_string(column.type) else column
