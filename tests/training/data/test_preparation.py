"""`python -m training prepare`: counts, what is missing or repeated, contact sheets, and parts that are split off."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import torch

from batchemo.records import EMOTIONS
from tests.made_media import read_pixels
from tests.patterns import Done, as_set, pattern, row, write_csv, write_votes
from training.data.fer2013 import PUBLISHED_CLASS_COUNTS, FaceSet, read_splits
from training.data.preparation import describe_splits

HAPPY, SAD = EMOTIONS.index("happy"), EMOTIONS.index("sad")


def published() -> dict[str, FaceSet]:
    """As many pictures of each split and emotion as FER2013 has, all of them alike but for their number."""
    splits = {}
    for split, counts in PUBLISHED_CLASS_COUNTS.items():
        labels = torch.repeat_interleave(torch.arange(7), torch.tensor(counts))
        pixels = torch.zeros(len(labels), 1, 48, 48, dtype=torch.uint8)
        numbers = torch.arange(len(labels))
        pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = numbers % 256, numbers // 256
        pixels[:, 0, 0, 2] = 1 + list(PUBLISHED_CLASS_COUNTS).index(split)
        splits[split] = FaceSet(pixels, labels)
    return splits


@pytest.mark.slow
def test_data_as_published_need_no_remark_and_others_say_how_they_differ() -> None:
    splits = published()
    facts, groups = describe_splits(splits, Path("fer2013.csv"))
    assert (facts["remarks"], facts["missing"], groups) == ([], [], [])

    test = splits["PublicTest"]
    relabelled = FaceSet(test.pixels, torch.where(torch.arange(len(test)) == 0, HAPPY, test.labels))
    facts, _ = describe_splits({"Training": splits["Training"].subset(torch.arange(28000)), "PublicTest": relabelled}, Path("fer2013.csv"))
    assert facts["missing"] == ["PrivateTest"]
    assert facts["splits"]["PublicTest"]["per_class"]["angry"] == {"n": 466, "published": 467}
    remarks = "\n".join(facts["remarks"])
    assert "no pictures of the split PrivateTest; FER2013 as published has 3,589" in remarks
    assert "Training has 28,000 pictures, 28,709 in FER2013 as published" in remarks
    assert "PublicTest has other labels than FER2013 as published: angry 466 for 467, happy 896 for 895" in remarks

    parts = [splits[split] for split in ("PublicTest", "PrivateTest")]
    both = FaceSet(torch.cat([part.pixels for part in parts]), torch.cat([part.labels for part in parts]))
    facts, _ = describe_splits({"Training": splits["Training"], "PublicTest": both}, Path("fer2013.csv"))
    assert any("PublicTest and PrivateTest are one folder here" in remark for remark in facts["remarks"])


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Path]:
    """A csv with ten pictures of each emotion but disgust, one of them blank, one repeated under another label; and votes for it."""
    rows = [row(label, seed, "Training") for label in range(7) for seed in range(10) if label != EMOTIONS.index("disgust")]
    rows[3] = (0, " ".join(["7"] * 48 * 48), "Training")
    rows.append((SAD, rows[25][1], "Training"))
    votes = [("Training", {"happiness": 10}) for _ in rows]
    return write_csv(tmp_path / "data.csv", rows), write_votes(tmp_path / "fer2013new.csv", votes)


def test_prepare_tells_what_there_is(run: Callable[..., Done], small: tuple[Path, Path]) -> None:
    data, votes = small
    done = run("prepare", "--data", data, "--votes", votes, "--json")
    assert (done.code, done.err) == (0, "")
    facts = json.loads(done.out)
    training = facts["splits"]["Training"]
    assert (training["n"], training["per_class"]["happy"]["n"], training["blank"]) == (61, 10, 1)
    assert training["votes"]["majority"] == 61
    assert training["votes"]["majority_is_label"] == {emotion: float(emotion == "happy") for emotion in EMOTIONS if emotion != "disgust"}
    assert (facts["duplicates"]["groups"], facts["duplicates"]["conflicting"]) == (1, 1)
    remarks = "\n".join(facts["remarks"])
    assert "Training has no pictures of disgust" in remarks
    assert "Training has 1 pictures of one grey" in remarks

    done = run("prepare", "--data", data, "--votes", votes)
    assert done.code == 0
    assert all(f"- {remark}\n" in done.out for remark in facts["remarks"])
    assert "happy" in done.out
    assert "2 pictures are in 1 groups of identical ones, 1 of the groups with labels that disagree." in done.out


def test_prepare_writes_statistics_and_pictures(run: Callable[..., Done], small: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("prepare", "--data", small[0], "--out", out, "--json").code == 0
    assert sorted(path.name for path in out.iterdir()) == ["augmentations.png", "duplicates.csv", "samples.png", "statistics.json"]
    assert json.loads((out / "statistics.json").read_text())["splits"]["Training"]["n"] == 61
    with (out / "duplicates.csv").open() as file:
        listed = list(csv.DictReader(file))
    # The 26th of the csv, below its header, is of happy; the repetition stands last.
    assert [(one["group"], one["picture"], one["emotion"], one["conflicting"]) for one in listed] == [
        ("1", "row 27", "happy", "True"),
        ("1", "row 62", "sad", "True"),
    ]
    for name in ("samples.png", "augmentations.png"):
        assert read_pixels(out / name).shape[1] > 1000


@pytest.mark.parametrize("target", ["parts.csv", "parts"])
def test_a_part_is_split_off_and_read_again(target: str, run: Callable[..., Done], small: tuple[Path, Path], tmp_path: Path) -> None:
    done = run("prepare", "--data", small[0], "--write", tmp_path / target, "--validation", "0.3", "--json")
    assert done.code == 0
    assert json.loads(done.out)["splits"].keys() == {"Training"}  # of what was given
    assert f"python -m training fit --data {tmp_path / target}" in done.err
    before, after = read_splits(small[0]), read_splits(tmp_path / target)
    assert after["PublicTest"].labels.bincount().tolist() == [3, 0, 3, 3, 3, 3, 3]
    assert as_set(after["Training"]) | as_set(after["PublicTest"]) == as_set(before["Training"])
    assert len(after["Training"]) + len(after["PublicTest"]) == 61

    done = run("prepare", "--data", small[0], "--write", tmp_path / target)
    assert done.code == 2
    assert "exists already" in done.err
    assert len(read_splits(tmp_path / target)["PublicTest"]) == 18


def test_pictures_of_other_sizes_are_reported_and_resized(run: Callable[..., Done], tmp_path: Path) -> None:
    data, sizes = tmp_path / "mine", ((96, 96), (48, 48), (64, 128))
    for number, size in enumerate(sizes):
        target = data / "sad" / f"{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), cv2.resize(pattern(0, number), size[::-1]))
    done = run("prepare", "--data", data, "--write", tmp_path / "at48", "--json")
    assert done.code == 0
    facts = json.loads(done.out)
    assert facts["sizes"] == {"96x96": 1, "48x48": 1, "128x64": 1}
    assert any("2 pictures are of another size" in remark for remark in facts["remarks"])
    assert any("1 of them are not square" in remark for remark in facts["remarks"])
    assert {read_pixels(path).shape for path in (tmp_path / "at48").rglob("*.png")} == {(48, 48, 3)}


def test_what_cannot_be_split_off_is_refused_before_anything_is_written(
    run: Callable[..., Done], data: Path, small: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "parts.csv"
    for arguments, message in (
        (("--data", data, "--validation", 0.3), "--validation needs --write"),
        (("--data", data, "--validation", 0.3, "--write", out), "have a PublicTest already"),
        (("--data", small[0], "--validation", 0.01, "--write", out), "one of the parts would be empty"),
        (("--data", tmp_path / "none.csv", "--write", out), "none.csv does not exist"),
        (("--data", small[0], "--recipe", tmp_path / "none.toml", "--write", out), "none.toml: cannot read the recipe"),
    ):
        done = run("prepare", *arguments)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert message in done.err
        assert not out.exists()
