"""Data sets for training: csv, folders and votes are read whole, and what is broken is named."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from batchemo.errors import DataError
from batchemo.records import EMOTIONS
from tests.patterns import as_set, pattern, row, write_csv, write_votes
from training.data.fer2013 import (
    PUBLISHED_CLASS_COUNTS,
    PUBLISHED_COUNTS,
    SPLITS,
    VOTES,
    FaceSet,
    clean_part,
    hold_out,
    read_split,
    read_splits,
)
from training.data.votes import majority

REAL_DATA = Path(__file__).parents[4] / "shared" / "data" / "fer2013.parquet"


def test_folders_give_the_same_pictures_as_the_csv(data: Path, tmp_path: Path) -> None:
    for usage, folder in (("Training", "train"), ("PublicTest", "test")):
        faces = read_split(data, usage)
        for index, (picture, label) in enumerate(zip(faces.pixels, faces.labels.tolist(), strict=True)):
            target = tmp_path / folder / EMOTIONS[label] / f"{usage}_{index}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(target), picture[0].numpy())
    private = tmp_path / "test" / "happy" / "PrivateTest_7.png"
    cv2.imwrite(str(private), pattern(3, 5))
    splits = read_splits(tmp_path)
    assert list(splits) == ["Training", "PublicTest", "PrivateTest"]
    assert splits["PrivateTest"].labels.tolist() == [3]
    for usage in ("Training", "PublicTest"):
        assert as_set(splits[usage]) == as_set(read_split(data, usage))


def test_votes_leave_out_training_pictures_that_are_no_faces(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "fer2013.csv", [row(0, 0, "Training"), row(1, 1, "Training"), row(2, 2, "PublicTest")])
    votes = write_votes(
        tmp_path / "fer2013new.csv", [("Training", {"NF": 10}), ("Training", {"anger": 5, "NF": 5}), ("PublicTest", {"NF": 10})]
    )
    assert read_splits(data, votes=votes, faces_only=False)["Training"].labels.tolist() == [0, 1]
    splits = read_splits(data, votes=votes)
    assert splits["Training"].labels.tolist() == [1]
    assert splits["PublicTest"].labels.tolist() == [2]
    counts = splits["Training"].votes
    assert counts is not None
    assert dict(zip(VOTES, counts[0].tolist(), strict=True)) == dict.fromkeys(VOTES, 0) | {"anger": 5, "NF": 5}


def test_votes_of_another_csv_are_refused(data: Path, tmp_path: Path) -> None:
    votes = write_votes(tmp_path / "fer2013new.csv", [("Training", {})])
    with pytest.raises(DataError, match="not the votes for this csv"):
        read_splits(data, votes=votes)
    votes.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"fer2013new\.csv: not the votes of FER\+"):
        read_splits(data, votes=votes)
    with pytest.raises(DataError, match="votes belong to the rows of a csv"):
        read_splits(tmp_path, votes=votes)


def test_broken_votes_are_named_with_their_row(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "fer2013.csv", [row(0, 0, "Training"), row(1, 1, "Training")])
    votes = write_votes(tmp_path / "fer2013new.csv", [("Training", {"anger": 3}), ("Training", {"anger": 4})])
    votes.write_text(votes.read_text().replace("4", "four"))
    with pytest.raises(DataError, match=r"fer2013new\.csv: row 3: votes must be numbers"):
        read_splits(data, votes=votes)


def test_the_clean_part_leaves_out_pictures_that_were_trained_on() -> None:
    trained = FaceSet(torch.zeros(2, 1, 48, 48, dtype=torch.uint8), torch.tensor([0, 1]))
    evaluated = FaceSet(torch.stack([torch.zeros(1, 48, 48), torch.ones(1, 48, 48)]).to(torch.uint8), torch.tensor([2, 3]))
    assert clean_part(evaluated, trained).tolist() == [False, True]


def test_a_part_held_out_has_its_share_of_each_emotion(data: Path) -> None:
    faces = read_split(data, "Training")
    rest, held = hold_out(faces, share=0.25, seed=3)
    assert held.labels.bincount().tolist() == [6] * 7
    assert rest.labels.bincount().tolist() == [18] * 7
    assert as_set(rest) | as_set(held) == as_set(faces)
    assert as_set(hold_out(faces, share=0.25, seed=3)[1]) == as_set(held) != as_set(hold_out(faces, share=0.25, seed=4)[1])


GOOD = row(0, 0, "Training")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ((7, GOOD[1], "Training"), "row 3: emotion must be 0 to 6, not '7'"),
        (("sad", GOOD[1], "Training"), "row 3: emotion must be 0 to 6, not 'sad'"),
        ((0, "1 2 3", "Training"), "row 3: 3 pixels, where 48 x 48 = 2304 are expected"),
        ((0, "", "Training"), "row 3: .*pixels"),
        ((0, str(GOOD[1]) + "x", "Training"), "row 3: pixels must be whole numbers"),
        ((0, str(GOOD[1]).rsplit(" ", 1)[0] + " 256", "Training"), "row 3: pixels must be whole numbers between 0 and 255"),
        ((0, GOOD[1], "Test"), "row 3: Usage must be one of Training, PublicTest, PrivateTest, not 'Test'"),
        ((0, GOOD[1], ""), "row 3: Usage"),
    ],
)
def test_a_broken_row_is_named(bad: tuple[object, object, object], message: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "fer2013.csv", [GOOD, bad, GOOD])
    with pytest.raises(DataError, match=rf"fer2013\.csv: {message}"):
        read_split(path, "Training")


def test_broken_data_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column usage; the csv of FER2013 has emotion, pixels and Usage"):
        read_split(write_csv(tmp_path / "a.csv", [GOOD], ("emotion", "pixels", "split")), "Training")
    with pytest.raises(DataError, match="no split 'Test'; choose one of Training, PublicTest, PrivateTest"):
        read_split(data, "Test")
    with pytest.raises(DataError, match="no pictures of the split PrivateTest, only of Training, PublicTest"):
        read_split(data, "PrivateTest")
    with pytest.raises(DataError, match=r"missing\.csv does not exist; .* --data"):
        read_split(tmp_path / "missing.csv", "Training")
    (tmp_path / "b.csv").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.csv: not a csv that can be read"):
        read_split(tmp_path / "b.csv", "Training")


def test_names_of_files_may_be_any_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "happy"
    folder.mkdir(parents=True)
    _, content = cv2.imencode(".png", pattern(3, 0))
    for name in (b"a\xff.png", "ü\n.png".encode(), b"<b>.png"):
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(content.tobytes())  # noqa: PTH118
    faces = read_splits(tmp_path)["Training"]
    assert all(np.array_equal(picture[0], pattern(3, 0)) for picture in faces.pixels.numpy())
    assert faces.names is not None
    assert sorted(name.encode() for name in faces.names) == [
        b"train/happy/<b>.png",
        "train/happy/a\ufffd.png".encode(),
        "train/happy/ü\n.png".encode(),
    ]


def test_broken_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no pictures; folders are called train/<emotion>/"):
        read_splits(tmp_path)
    picture = tmp_path / "train" / "joy" / "1.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"no picture")
    with pytest.raises(DataError, match="joy: no emotion of that name; folders are called angry, disgust"):
        read_splits(tmp_path)
    picture.parent.rename(tmp_path / "train" / "happy")
    with pytest.raises(DataError, match=r"1\.png: not a picture that can be read"):
        read_splits(tmp_path)
    (tmp_path / "train" / "happy" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1\.png: not a picture that can be read"):
        read_splits(tmp_path)


def test_the_csv_as_kaggle_publishes_it_again_is_read(data: Path, tmp_path: Path) -> None:
    with data.open(newline="") as file:
        lines = [(emotion, f" {usage}", f" {pixels}") for emotion, pixels, usage in list(csv.reader(file))[1:]]
    other = write_csv(tmp_path / "icml_face_data.csv", lines, ("emotion", " Usage", " pixels"))
    one, two = read_splits(data), read_splits(other)
    assert list(one) == list(two)
    for split in one:
        assert torch.equal(one[split].pixels, two[split].pixels)
        assert torch.equal(one[split].labels, two[split].labels)


def test_pictures_know_where_they_stand(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "fer2013.csv", [row(0, 0, "PublicTest"), row(1, 1, "Training"), row(2, 2, "PublicTest")])
    faces = read_splits(path)["PublicTest"]
    assert faces.names is not None
    assert faces.names.tolist() == ["row 2", "row 4"]
    assert path.read_text().splitlines()[4 - 1].startswith("2,")
    chosen = faces.subset(torch.tensor([False, True]))
    assert chosen.names is not None
    assert chosen.names.tolist() == ["row 4"]


def test_a_folder_of_emotions_alone_is_all_for_training(tmp_path: Path) -> None:
    for emotion in ("happy", "sad"):
        (tmp_path / emotion).mkdir()
        cv2.imwrite(str(tmp_path / emotion / "one.png"), pattern(EMOTIONS.index(emotion), 0))
    splits = read_splits(tmp_path)
    assert list(splits) == ["Training"]
    assert [EMOTIONS[label] for label in splits["Training"].labels.tolist()] == ["happy", "sad"]
    assert splits["Training"].names is not None
    assert splits["Training"].names.tolist() == ["happy/one.png", "sad/one.png"]


def test_the_published_counts_add_up() -> None:
    assert tuple(PUBLISHED_COUNTS) == SPLITS
    assert list(PUBLISHED_COUNTS.values()) == [28709, 3589, 3589]
    totals = [sum(counts) for counts in zip(*PUBLISHED_CLASS_COUNTS.values(), strict=True)]
    assert totals == [4953, 547, 5121, 8989, 6077, 4002, 6198]  # Goodfellow et al. 2013


@pytest.mark.slow
@pytest.mark.skipif(not REAL_DATA.exists(), reason="FER2013 is not beside the checkout")
def test_the_real_data_has_its_published_counts_and_its_known_repetitions(tmp_path: Path) -> None:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(REAL_DATA, columns=["emotion", "usage", "pixels"]).to_pandas()
    pixels = torch.from_numpy(np.frombuffer(b"".join(table["pixels"]), np.uint8).reshape(-1, 1, 48, 48).copy())
    labels = torch.tensor(table["emotion"].to_numpy(np.int64))
    splits = {
        name: FaceSet(pixels, labels).subset(torch.tensor((table["usage"] == name).to_numpy())) for name in ("Training", "PublicTest")
    }
    assert {name: tuple(faces.labels.bincount().tolist()) for name, faces in splits.items()} == {
        name: PUBLISHED_CLASS_COUNTS[name] for name in splits
    }
    assert int((~clean_part(splits["PublicTest"], splits["Training"])).sum()) == 280
    for split, kept in (("Training", 25060), ("PublicTest", 3199)):
        votes = pyarrow.parquet.read_table(REAL_DATA, filters=[("usage", "==", split)]).to_pandas()
        assert int((majority(torch.tensor(votes[[f"ferplus_{vote}" for vote in VOTES]].to_numpy(np.int64))) >= 0).sum()) == kept

    first = [(label, " ".join(map(str, picture)), usage) for label, usage, picture in table.head(50).itertuples(index=False)]
    read = read_split(write_csv(tmp_path / "fer2013.csv", first), "Training")
    assert torch.equal(read.pixels, pixels[:50])
    assert torch.equal(read.labels, labels[:50])
