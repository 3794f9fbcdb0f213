"""`load` reads tables, picks columns and rows, and names what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyarrow import dataset

from batchemo.errors import UsageError
from batchemo.results.load import load, table_files
from batchemo.results.paths import table_path
from tests.made_tables import frame_result, probabilities_of, write_tables


def test_a_folder_is_one_data_set(tmp_path: Path) -> None:
    write_tables(tmp_path, "a.mp4")
    write_tables(tmp_path, "deep/er/b.mp4")
    write_tables(tmp_path, "nobody.mp4", frames=[frame_result(0, [])])
    write_tables(tmp_path, "odd.parquet/c.mp4")
    (tmp_path / "faces" / ".x.part").write_bytes(b"half a file")
    by_pandas = pd.read_parquet(tmp_path / "faces")
    by_us = load(tmp_path)
    assert len(by_pandas) == len(by_us) == 120
    assert sorted(by_us["media"].unique()) == ["a.mp4", "deep/er/b.mp4", "odd.parquet/c.mp4"]
    assert dict(by_pandas.dtypes) == dict(by_us.dtypes)
    assert len(list(table_files(tmp_path, "faces"))) == 4
    assert len(load(tmp_path, table="frames")) == 3 * 22 + 2


def test_loading_some_columns_or_one_file(tmp_path: Path) -> None:
    write_tables(tmp_path)
    assert list(load(tmp_path, columns=["media", "emotion"]).columns) == ["media", "emotion"]
    assert len(load(table_path(tmp_path, "tracks", "a.mp4"))) == 2


def test_media_of_other_labels_are_loaded_together(tmp_path: Path) -> None:
    write_tables(tmp_path, "a.mp4")
    write_tables(tmp_path, "b.mp4", frames=[frame_result(0, [[0.25, 0.75]])], labels=("calm", "happy"))
    faces = load(tmp_path)
    assert faces.loc[faces["media"] == "b.mp4", "p_calm"].tolist() == [0.25]
    assert faces.loc[faces["media"] == "a.mp4", "p_calm"].isna().all()
    assert faces["p_happy"].notna().all()


def test_loading_what_is_not_there(tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UsageError, match="batchemo run"):
            load(folder)
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "x.parquet").write_text("no table")
    with pytest.raises(UsageError, match=r"x\.parquet is damaged, or no Parquet file"):
        load(tmp_path)
    wrong: Any = "persons"
    with pytest.raises(UsageError, match="faces, frames, tracks, episodes, media"):
        load(tmp_path, table=wrong)


# Picking rows and several places


def test_where_picks_rows(tmp_path: Path) -> None:
    write_tables(tmp_path)
    write_tables(tmp_path, "b.mp4", frames=[frame_result(0, [probabilities_of("fear")])])
    assert len(load(tmp_path, where=[("emotion", "==", "happy"), ("frame_index", "<", 5)])) == 5
    assert len(load(tmp_path, where=("media", "==", "b.mp4"))) == 1
    assert len(load(tmp_path, where=[[("emotion", "==", "fear")], [("emotion", "in", ["sad", "angry"])]])) == 21
    assert len(load(tmp_path, columns=["media"], where=dataset.field("confidence") > 0.6)) == 21
    assert len(load(tmp_path, where=[])) == 41
    assert load(tmp_path, table="frames", where=[("status", "!=", "ok")])["frame_index"].tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("where", "word"),
    [
        ([("emotoin", "==", "sad")], "no column 'emotoin'; did you mean 'emotion'"),
        (dataset.field("emotoin") == "sad", "no column 'emotoin'; did you mean 'emotion'"),
        ([("emotion", "=~", "sad")], "=~"),
        ([("emotion", "sad")], r"write it as where=\[\('emotion', '==', 'happy'\)\]"),
        ("happy", "write it as"),
        ([("confidence", ">", "high")], "confidence"),
    ],
    ids=str,
)
def test_where_that_cannot_be(tmp_path: Path, where: Any, word: str) -> None:
    write_tables(tmp_path)
    with pytest.raises(UsageError, match=word):
        load(tmp_path, where=where)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    write_tables(tmp_path)
    with pytest.raises(UsageError, match="no column 'medium'; did you mean 'media'"):
        load(tmp_path, columns=["medium"])


def test_several_results_folders_stay_apart(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write_tables(one)
    write_tables(other, frames=[frame_result(0, [[0.25, 0.75]])], labels=("calm", "happy"))
    faces = load([one, str(other)])
    assert faces.groupby("results").size().to_dict() == {str(one): 40, str(other): 1}
    assert faces.columns[0] == "results"
    assert faces["p_calm"].notna().sum() == 1
    with pytest.raises(UsageError, match="twice"):
        load([one, one / "."])
    with pytest.raises(UsageError, match="empty"):
        load([])


def test_the_folder_of_a_table_stands_for_itself(tmp_path: Path) -> None:
    write_tables(tmp_path)
    assert len(load(tmp_path / "faces")) == 40
    assert "best_frame_index" in load(tmp_path / "tracks").columns
