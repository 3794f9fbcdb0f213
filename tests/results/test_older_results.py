"""Results of older versions, whose tables lack columns, are read with missing values, and every command works on them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from batchemo import load
from batchemo.analysis.export.formats import Format, export_results
from batchemo.errors import UsageError
from batchemo.records import Medium
from batchemo.report.site import write_site
from batchemo.report.summary import summarise
from batchemo.results.catalog import merge_media_rows, read_media_rows
from batchemo.results.load import open_table
from batchemo.results.schema import MEDIA, PER_MEDIUM, Table
from batchemo.verify.audit import verify
from tests.made_results import HOSTILE, hostile_results, turn_into_version, write_media, write_medium

LARGE = 2**62 + 1
"""An integer that float64 cannot represent."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    results = hostile_results(tmp_path)
    turn_into_version(results, 1)
    return results


@pytest.mark.parametrize("table", [*PER_MEDIUM, "media"])
def test_all_tables_are_loaded(old: Path, table: Table) -> None:
    rows = load(old, table=table)
    assert len(rows)
    if table == "media":
        assert list(rows.columns) == MEDIA.names
        assert rows["starts_s"].isna().all()
        assert rows["starts_s"].dtype == "float64"
        assert load(old, table="media", columns=["media", "starts_s"]).shape == (len(rows), 2)
        assert load(old, table="media", where=[("starts_s", ">", 1)]).empty
    else:
        assert len(load(old / table)) == len(rows), "the folder of one table is read, too"


def test_summary_page_and_exports_are_made(old: Path) -> None:
    assert len(summarise(old).media) == len(HOSTILE) + 3
    assert write_site(old).media == len(HOSTILE) + 3
    formats: tuple[Format, ...] = ("csv", "webvtt", "eaf", "mot", "notebook")
    for to in formats:
        assert export_results(old, to).files
    (caption,) = [file for file in export_results(old, "webvtt").files if file.name == "angry.mp4.vtt"]
    assert "00:00:00.000 --> " in caption.read_text()


def test_verify_names_the_schema(old: Path) -> None:
    found = [problem.message for problem in verify(old).problems if problem.kind == "metadata" and "schema" in problem.message]
    assert len(found) == len(HOSTILE) + 2
    assert all("is of schema 1, and this batchemo writes" in message for message in found)


def test_the_index_keeps_what_is_not_known(old: Path) -> None:
    merge_media_rows(old, {}, lacking={})
    assert {row.starts_s for row in read_media_rows(old).values()} == {None}
    assert load(old, table="media")["starts_s"].isna().all()


# Columns of whole numbers, in a table with a file for each medium


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """One medium of an older version without `n_faces`, and one of this version."""
    rows = []
    for name, old in (("a.mp4", True), ("b.mp4", False)):
        rows.append(write_medium(tmp_path, Medium(Path(f"/{name}"), name, name, "video"), [[("happy", 0.9)]], run_id="r", frames=3))
        if old:
            turn_into_version(tmp_path, 1, without={"frames": ("n_faces",)})
    write_media(tmp_path, rows)
    return tmp_path


def test_a_column_that_some_media_lack(mixed: Path) -> None:
    frames = load(mixed, table="frames").set_index("media")
    assert frames["n_faces"].dtype == "Int16"
    assert frames.loc[["a.mp4"], "n_faces"].isna().all()
    assert frames.loc[["b.mp4"], "n_faces"].tolist() == [1, 1, 1]
    assert len(load(mixed, table="frames", where=[("n_faces", ">=", 1)])) == 3


def test_verify_tells_the_version_where_columns_are_missing(mixed: Path) -> None:
    problems = [problem for problem in verify(mixed).problems if problem.media == "a.mp4"]
    assert [(problem.kind, "is of schema 1" in problem.message) for problem in problems] == [("metadata", True)]


def test_whole_numbers_stay_exact_beside_missing_ones(tmp_path: Path) -> None:
    places = [tmp_path / "old", tmp_path / "new"]
    for place in places:
        row = write_medium(place, Medium(Path("/a.mp4"), "a.mp4", "a.mp4", "video"), [], run_id="r", frames=1)
        row = type(row)(**(row.as_dict() | {"n_frames": LARGE}))
        write_media(place, [row])
    turn_into_version(places[0], 1, without={"media": ("n_frames",)})
    numbers = load(places, table="media")["n_frames"]
    assert numbers.dtype == "Int64"
    assert numbers[0] is pd.NA
    assert numbers[1] == LARGE
    assert open_table(places[0], table="media").schema.names == MEDIA.names


def test_a_column_of_no_version_is_still_unknown(old: Path) -> None:
    with pytest.raises(UsageError, match="no column 'start_s'; did you mean 'starts_s'"):
        load(old, table="media", columns=["start_s"])
