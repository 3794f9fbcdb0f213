"""Training: from a csv or folders to a weights file, on small patterns that a small network can tell apart."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from batchemo.errors import DataError
from batchemo.network import ExpressionNet, NetworkSpec
from batchemo.records import EMOTIONS
from batchemo.weights import load_weights, save_weights
from training import cli
from training.calibration import calibrate, cross_calibrate, expected_calibration_error, fit_temperature
from training.dataset import PUBLISHED_COUNTS, VOTES, FaceSet, clean_part, hold_out, read_split, read_splits
from training.evaluation import evaluate
from training.fitting import CHECKPOINT, Epoch, fit, predict
from training.recipe import RECIPES, Recipe, read_recipe
from training.votes import label_probabilities, vote_shares

REPOSITORY = Path(__file__).parents[1]
REAL_DATA = REPOSITORY.parent / "shared" / "data" / "fer2013.parquet"
CPU = torch.device("cpu")

RECIPE = """
epochs = 4
batch_size = 8
learning_rate = 0.05
warmup_epochs = 0.5
ema_decay = 0.8
sizes = [24, 48]
size_shares = [0.5, 0.5]

[network]
stem = 8
widths = [8, 16]
blocks = [1, 1]

[augmentation]
rotation_degrees = 3.0
erase = 0.1
low_resolution = 0.1
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pattern(label: int, seed: int) -> NDArray[np.uint8]:
    """Stripes whose direction and width say the class; where they start, their contrast and noise say nothing."""
    random = np.random.default_rng([label, seed])
    along = np.mgrid[0:48, 0:48][label % 2]
    waves = 127 + random.uniform(40, 90) * np.sin(2 * math.pi * (2 + 2 * label) * along / 48 + random.uniform(0, 6))
    return (waves + random.normal(0, 8, (48, 48))).clip(0, 255).astype(np.uint8)


def write_csv(path: Path, rows: list[tuple[object, object, object]], header: tuple[str, ...] = ("emotion", "pixels", "Usage")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def row(label: int, seed: int, usage: str) -> tuple[object, object, object]:
    return label, " ".join(map(str, pattern(label, seed).ravel())), usage


def rows(*, training: int = 24, public: int = 8) -> list[tuple[object, object, object]]:
    wanted = [("Training", seed) for seed in range(training)] + [("PublicTest", 1000 + seed) for seed in range(public)]
    return [row(label, seed, usage) for usage, seed in wanted for label in range(7)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "fer2013.csv", rows())


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def recipe(recipe_file: Path) -> Recipe:
    return read_recipe(recipe_file)


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """`python -m training ARGUMENTS` within this process."""

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
        with pytest.raises(SystemExit) as exited:
            cli.main()
        return Done(int(exited.value.code or 0), *capsys.readouterr())

    return call


def train(recipe: Recipe, data: Path, folder: Path, report: Callable[[Epoch], None] = lambda _: None) -> ExpressionNet:
    return fit(recipe, read_split(data, "Training"), validation=None, folder=folder, device=CPU, report=report)


def same_weights(one: ExpressionNet, other: ExpressionNet) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


@pytest.fixture(scope="module")
def fitted(recipe: Recipe, data: Path, tmp_path_factory: pytest.TempPathFactory) -> ExpressionNet:
    torch.set_num_threads(1)
    return train(recipe, data, tmp_path_factory.mktemp("run"))


# Fitting


def test_a_network_learns(fitted: ExpressionNet, data: Path) -> None:
    unseen = read_split(data, "PublicTest")
    accuracy = (predict(fitted, unseen.pixels, CPU).argmax(1) == unseen.labels).float().mean()
    assert accuracy > 0.6  # chance: 0.14


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    recipe: Recipe, data: Path, fitted: ExpressionNet, tmp_path: Path
) -> None:
    assert same_weights(train(recipe, data, tmp_path / "same"), fitted)
    assert not same_weights(train(dataclasses.replace(recipe, seed=1), data, tmp_path / "other"), fitted)


def test_a_run_that_was_stopped_ends_with_the_weights_of_one_that_was_not(
    recipe: Recipe, data: Path, fitted: ExpressionNet, tmp_path: Path
) -> None:
    def stop(_: Epoch) -> None:
        raise KeyboardInterrupt

    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, tmp_path, stop)
    assert same_weights(train(recipe, data, tmp_path, lambda done: seen.append(done.epoch)), fitted)
    assert seen == [1, 2, 3]
    assert [line.split(",")[0] for line in (tmp_path / "epochs.csv").read_text().splitlines()] == ["epoch", "0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [("recipe", "belongs to another recipe; .*--out"), ("pictures", "belongs to other pictures"), ("file", "damaged checkpoint")],
)
def test_a_checkpoint_that_does_not_fit_is_refused(changed: str, message: str, recipe: Recipe, data: Path, tmp_path: Path) -> None:
    faces = read_split(data, "Training")
    short = dataclasses.replace(recipe, epochs=1)
    fit(short, faces, validation=None, folder=tmp_path, device=CPU, report=lambda _: None)
    if changed == "recipe":
        short = dataclasses.replace(short, learning_rate=0.01)
    elif changed == "pictures":
        faces = faces.subset(torch.arange(len(faces) - 1))
    else:
        (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:3000])
    with pytest.raises(DataError, match=message):
        fit(short, faces, validation=None, folder=tmp_path, device=CPU, report=lambda _: None)


def test_a_run_begins_with_the_weights_it_is_given(fitted: ExpressionNet, recipe: Recipe, data: Path, tmp_path: Path) -> None:
    still = dataclasses.replace(recipe, learning_rate=1e-12, epochs=1)
    faces = read_split(data, "Training")
    same = fit(still, faces, validation=None, folder=tmp_path, device=torch.device("cpu"), report=lambda _: None, start=fitted)
    for before, after in zip(fitted.parameters(), same.parameters(), strict=True):
        assert torch.allclose(before, after, atol=1e-5)
    other = dataclasses.replace(recipe, network=NetworkSpec(stem=8, widths=(16, 16), blocks=(1, 1)))
    with pytest.raises(DataError, match="another network"):
        fit(other, faces, validation=None, folder=tmp_path / "x", device=torch.device("cpu"), report=lambda _: None, start=fitted)


def test_too_few_pictures_for_a_batch_are_refused(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    few = read_split(data, "Training").subset(torch.arange(7))
    with pytest.raises(DataError, match="7 pictures do not fill one batch of 8; lower batch_size"):
        fit(recipe, few, validation=None, folder=tmp_path, device=CPU, report=lambda _: None)


def test_a_recipe_that_explodes_says_what_to_change(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lower learning_rate"):
        train(dataclasses.replace(recipe, learning_rate=1e30, warmup_epochs=0.0), data, tmp_path)


# Data


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


def as_set(faces: FaceSet) -> set[tuple[int, bytes]]:
    return {(int(label), picture.numpy().tobytes()) for picture, label in zip(faces.pixels, faces.labels, strict=True)}


def write_votes(path: Path, rows: list[tuple[str, dict[str, int]]]) -> Path:
    """`fer2013new.csv`: for each row its split and the votes that are not 0."""
    lines = [",".join([split, "", *(str(votes.get(name, 0)) for name in VOTES)]) for split, votes in rows]
    path.write_text("\n".join([",".join(["Usage", "Image name", *VOTES]), *lines]) + "\n")
    return path


def test_votes_leave_out_training_pictures_that_are_no_faces(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "fer2013.csv", [row(0, 0, "Training"), row(1, 1, "Training"), row(2, 2, "PublicTest")])
    votes = write_votes(
        tmp_path / "fer2013new.csv", [("Training", {"NF": 10}), ("Training", {"anger": 5, "NF": 5}), ("PublicTest", {"NF": 10})]
    )
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


def test_votes_tell_how_likely_each_label_is() -> None:
    # Votes of happiness mean happy, three times out of four; what nobody voted on could be anything.
    labels = torch.tensor([label for label in range(7) for _ in range(40)])
    happy = EMOTIONS.index("happy")
    counts = torch.zeros(280, len(VOTES), dtype=torch.int64)
    counts[labels == happy, VOTES.index("happiness")] = 10
    (others,) = torch.where(labels != happy)
    counts[others[::18], VOTES.index("happiness")] = 10
    likely = label_probabilities(counts, labels, seed=0)
    assert torch.allclose(likely.sum(dim=1), torch.ones(280), atol=1e-5)
    voted = counts[:, VOTES.index("happiness")] > 0
    share = float((labels[voted] == happy).float().mean())
    assert abs(float(likely[voted, happy].mean()) - share) < 0.05
    assert float(likely[~voted, happy].mean()) < 0.05


def test_scarce_emotions_cannot_teach_what_votes_mean() -> None:
    with pytest.raises(DataError, match=r"fewer than 5 pictures of disgust.*votes_share = 0"):
        label_probabilities(torch.ones(60, len(VOTES), dtype=torch.int64), torch.tensor([0, 2, 3, 4, 5, 6] * 10), seed=0)


def test_a_recipe_learns_from_votes_and_asks_for_them(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    voting = dataclasses.replace(recipe, votes_share=0.5, votes_weight=0.3, epochs=1)
    faces = read_split(data, "Training")
    with pytest.raises(DataError, match=r"fer2013new\.csv with --votes"):
        fit(voting, faces, validation=None, folder=tmp_path / "none", device=CPU, report=lambda _: None)
    assert not (tmp_path / "none").exists()
    faces = dataclasses.replace(faces, votes=torch.randint(0, 10, (len(faces), len(VOTES)), generator=torch.Generator().manual_seed(0)))

    def learn(name: str, recipe: Recipe) -> ExpressionNet:
        return fit(recipe, faces, validation=None, folder=tmp_path / name, device=CPU, report=lambda _: None)

    both, targets_alone = learn("both", voting), learn("targets", dataclasses.replace(voting, votes_weight=0.0))
    assert not same_weights(both, targets_alone), "the second head taught nothing"
    assert not same_weights(targets_alone, learn("none", dataclasses.replace(recipe, epochs=1))), "the softer targets taught nothing"


def test_shares_of_votes_are_a_distribution() -> None:
    counts = torch.zeros(2, len(VOTES), dtype=torch.int64)
    counts[0, 0], counts[0, 1] = 3, 1
    shares = vote_shares(counts)
    assert shares[0, :2].tolist() == [0.75, 0.25]
    assert torch.allclose(shares.sum(dim=1), torch.ones(2))


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


@pytest.mark.skipif(not REAL_DATA.exists(), reason="FER2013 is not beside the checkout")
def test_the_real_data_has_its_published_counts_and_its_known_repetitions(tmp_path: Path) -> None:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(REAL_DATA, columns=["emotion", "usage", "pixels"]).to_pandas()
    pixels = torch.from_numpy(np.frombuffer(b"".join(table["pixels"]), np.uint8).reshape(-1, 1, 48, 48).copy())
    labels = torch.tensor(table["emotion"].to_numpy(np.int64))
    splits = {
        name: FaceSet(pixels, labels).subset(torch.tensor((table["usage"] == name).to_numpy())) for name in ("Training", "PublicTest")
    }
    assert {name: len(faces) for name, faces in splits.items()} == {name: PUBLISHED_COUNTS[name] for name in splits}
    assert splits["Training"].labels.bincount().tolist() == [3995, 436, 4097, 7215, 4830, 3171, 4965]
    assert int((~clean_part(splits["PublicTest"], splits["Training"])).sum()) == 280

    first = [(label, " ".join(map(str, picture)), usage) for label, usage, picture in table.head(50).itertuples(index=False)]
    read = read_split(write_csv(tmp_path / "fer2013.csv", first), "Training")
    assert torch.equal(read.pixels, pixels[:50])
    assert torch.equal(read.labels, labels[:50])


# Recipes


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_that_come_along_can_be_read(path: Path) -> None:
    assert read_recipe(path).network.classes == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("[augmentation]\nflipp = 0.5", r"\[augmentation\]: unknown key 'flipp'; did you mean 'flip'?"),
        ("colour = 3", "unknown key 'colour'; choose from epochs, batch_size"),
        ('epochs = "60"', "epochs cannot be '60'; the default is 50"),
        ("epochs = 0", "epochs must be 1 or more"),
        ("sizes = []", r"sizes cannot be \[\]"),
        ("sizes = [48]", "size_shares must be as many as sizes"),
        ("[network]\nclasses = 8", "classes must be 7"),
        ("[network]\nwidths = [16]", "1 widths for 4 stages"),
        ("network = 3", "network cannot be 3"),
        ("epochs == 3", "not TOML"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"recipe\.toml.*{message}"):
        read_recipe(path)


def test_a_missing_recipe_says_where_there_are_some(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the recipe .*recipes"):
        read_recipe(tmp_path / "none.toml")


def test_sizes_grow_over_the_epochs_by_their_shares() -> None:
    recipe = Recipe(epochs=10, sizes=(32, 40, 48), size_shares=(0.4, 0.3, 0.3))
    assert [recipe.size_px(epoch) for epoch in range(10)] == [32] * 4 + [40] * 3 + [48] * 3


# Evaluation and calibration


def logits_of(probabilities: list[list[float]]) -> NDArray[np.float64]:
    return np.log(np.array(probabilities))


def test_figures_of_a_small_case_computed_by_hand() -> None:
    small = 0.4 / 6
    sure_of = {label: [0.6 if index == label else small for index in range(7)] for label in range(7)}
    truth = np.array([0, 0, 0, 3, 3])
    read_as = [0, 0, 3, 3, 3]
    figures = evaluate(logits_of([sure_of[label] for label in read_as]), truth, temperature=1.0, clean=np.array([0, 0, 1, 1, 1], bool))
    assert figures["n"] == 5
    assert figures["accuracy"] == pytest.approx(0.8)
    # Wilson 1927 for 4 of 5 with z = 1.96: centre (.8 + z^2/10) / (1 + z^2/5), half width z sqrt(.8 x .2 / 5 + z^2/100) / (1 + z^2/5).
    assert (figures["accuracy_low"], figures["accuracy_high"]) == (pytest.approx(0.3755, abs=1e-4), pytest.approx(0.9638, abs=1e-4))
    assert figures["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert figures["macro_f1"] == pytest.approx((0.8 + 0.8) / 2)
    assert figures["nll"] == pytest.approx(-(4 * math.log(0.6) + math.log(small)) / 5)
    right, wrong = 0.4**2 + 6 * small**2, 0.6**2 + (1 - small) ** 2 + 5 * small**2
    assert figures["brier"] == pytest.approx((4 * right + wrong) / 5)
    assert figures["ece"] == pytest.approx((4 * 0.4 + 0.6) / 5)  # five pictures in fifteen bins: each is its own
    assert figures["per_class"]["happy"] == {"precision": pytest.approx(2 / 3), "recall": 1.0, "f1": pytest.approx(0.8), "support": 2}
    assert figures["per_class"]["fear"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert figures["confusion"][0] == [2, 0, 0, 1, 0, 0, 0]
    assert figures["confusion"][3] == [0, 0, 0, 2, 0, 0, 0]
    assert (figures["clean"]["n"], figures["clean"]["accuracy"]) == (3, pytest.approx(2 / 3))
    assert figures["coverage"][2] == {"threshold": 0.5, "coverage": 1.0, "accuracy": pytest.approx(0.8)}
    assert figures["coverage"][4] == {"threshold": 0.7, "coverage": 0.0, "accuracy": None}


def test_macro_f1_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(200, 7)), random.integers(0, 7, 200)
    figures = evaluate(logits, labels, temperature=2.0, clean=None)
    assert figures["macro_f1"] == pytest.approx(f1_score(labels, logits.argmax(1), average="macro"))
    assert figures["clean"] is None


def test_nothing_cannot_be_evaluated() -> None:
    with pytest.raises(DataError, match="0 pictures are too few"):
        evaluate(np.empty((0, 7)), np.empty(0, np.int64), temperature=1.0, clean=None)
    with pytest.raises(DataError, match="no pictures to fit the temperature on"):
        fit_temperature(np.empty((0, 7)), np.empty(0, np.int64))


def test_calibration_error_of_honest_and_of_overconfident_readings() -> None:
    correct = np.tile([True, True, True, True, False], 60)
    assert expected_calibration_error(np.full(300, 0.8), correct) == pytest.approx(0, abs=1e-12)
    assert expected_calibration_error(np.full(300, 0.99), correct) == pytest.approx(0.19)
    assert expected_calibration_error(np.full(300, 0.5), correct) == pytest.approx(0.3)
    right = np.tile([True, False], 150)
    assert expected_calibration_error(np.where(right, 0.9, 0.7), right, bins=2) == pytest.approx((0.1 + 0.7) / 2)
    assert expected_calibration_error(np.where(right, 0.8, 0.2), ~right, bins=2) == pytest.approx(0.8)  # errors of either sign add up


def drawn(scale: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits, times `scale`, of 4,000 pictures whose labels are drawn by the probabilities of the unscaled logits."""
    random = np.random.default_rng(7)
    logits = random.normal(0, 1.5, (4000, 7))
    labels = np.array([random.choice(7, p=row) for row in calibrate(logits, 1.0)])
    return logits * scale, labels


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_overconfidence(scale: float) -> None:
    logits, labels = drawn(scale)
    assert fit_temperature(logits, labels) == pytest.approx(scale, rel=0.06)
    crossed = cross_calibrate(logits, labels)
    assert expected_calibration_error(crossed.max(1), crossed.argmax(1) == labels) < 0.03
    assert np.array_equal(crossed.argmax(1), logits.argmax(1))


def test_no_picture_calibrates_itself() -> None:
    right, wrong = [3.0, 0, 0, 0, 0, 0, 0], [0, 3.0, 0, 0, 0, 0, 0]
    probabilities = cross_calibrate(np.array([right, wrong]), np.array([0, 0]))
    assert probabilities[0, 0] < 0.2  # by the temperature of the picture that is read wrong
    assert probabilities[1, 1] > 0.999


# Command line


def test_from_data_to_evaluated_weights(run: Callable[..., Done], recipe_file: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    weights = out / "weights.safetensors"
    code, printed, messages = run("fit", recipe_file, "--data", data, "--out", out, "--device", "cpu")
    assert (code, printed) == (0, f"{weights}\n")
    assert sum(line.startswith("epoch ") for line in messages.splitlines()) == 4
    assert "validation" in messages
    assert sorted(path.name for path in out.iterdir()) == [CHECKPOINT, "epochs.csv", "weights.safetensors", "weights.safetensors.sha256"]
    loaded = load_weights(weights)
    assert set(loaded.figures) >= {"accuracy", "accuracy_clean", "macro_f1", "ece", "split", "multiply_adds", "parameters"}
    assert (loaded.figures["recipe"], loaded.figures["epochs"], loaded.figures["n"]) == ("tiny", 4, 56)

    code, printed, _ = run("evaluate", weights, "--data", data, "--json")
    figures = json.loads(printed)
    assert code == 0
    assert figures["accuracy"] == pytest.approx(loaded.figures["accuracy"], abs=1e-5)
    assert (figures["weights_sha256"], figures["split"], figures["tta"]) == (loaded.sha256, "PublicTest", False)
    assert set(figures) >= {"accuracy_low", "accuracy_high", "balanced_accuracy", "macro_f1", "ece", "ece_cross_fitted", "nll", "brier"}
    assert set(figures) >= {"n", "per_class", "confusion", "clean", "coverage"}

    code, printed, messages = run("evaluate", weights, "--data", data, "--tta", "--split", "Training")
    assert code == 0
    assert "Training: 168 pictures, each with its mirror image" in printed
    assert "unseen in training" not in printed
    assert "168 pictures, 28709 in FER2013 as published" in messages


def test_without_a_test_split_a_tenth_is_held_back(run: Callable[..., Done], recipe_file: Path, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "fer2013.csv", rows(training=20, public=0))
    done = run("fit", recipe_file, "--data", data, "--out", tmp_path / "run", "--epochs", 1)
    assert done.code == 0
    assert "a tenth of Training is held back instead" in done.err
    figures = load_weights(tmp_path / "run" / "weights.safetensors").figures
    assert (figures["n"], figures["split"], figures["epochs"]) == (14, "a tenth of Training", 1)


def test_shipping_puts_a_checked_file_in_the_package(
    run: Callable[..., Done], fitted: ExpressionNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "package" / "fer2013.safetensors"
    monkeypatch.setattr("batchemo.weights.SHIPPED", shipped)
    weights = tmp_path / "weights.safetensors"
    digest = save_weights(weights, fitted, labels=EMOTIONS, temperature=1.5, figures={})
    assert run("ship", weights) == (0, f"{shipped}\n", "")
    assert load_weights(shipped).sha256 == digest
    weights.write_bytes(weights.read_bytes()[:-1])
    assert run("ship", weights).code == 2
    assert load_weights(shipped).sha256 == digest


def test_mistakes_are_one_line_and_exit_2(run: Callable[..., Done], fitted: ExpressionNet, data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    save_weights(weights, fitted, labels=tuple("abcdefg"), temperature=1.0, figures={})
    misspelt = tmp_path / "recipe.toml"
    misspelt.write_text("epoch = 3")
    for arguments, message in (
        (("fit", "--data", tmp_path / "a\nb.csv"), "a?b.csv does not exist"),
        (("fit", misspelt, "--data", data), "did you mean 'epochs'?"),
        (("fit", "--data", data, "--device", "cuda:99"), "--device"),
        (("evaluate", tmp_path / "none.safetensors", "--data", data), "none.safetensors: cannot read"),
        (("evaluate", weights, "--data", data), "tells apart a, b, c"),
        (("evaluate", weights, "--data", data, "--split", "test"), "no split 'test'"),
    ):
        done = run(*arguments)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert message in done.err


def test_data_that_are_all_trained_on_cannot_calibrate(run: Callable[..., Done], recipe_file: Path, tmp_path: Path) -> None:
    repeated = [row(label, 0, usage) for usage in ("Training", "PublicTest") for label in range(7)]
    data = write_csv(tmp_path / "fer2013.csv", repeated)
    done = run("fit", recipe_file, "--data", data, "--out", tmp_path / "run")
    assert done.code == 2
    assert "all 7 pictures of PublicTest are trained on as well" in done.err


def test_an_interrupted_training_says_that_it_goes_on(
    run: Callable[..., Done], recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_progress", interrupt)
    done = run("fit", recipe_file, "--data", data, "--out", tmp_path)
    assert done.code == 130
    assert "the same command goes on after the last whole epoch" in done.err
    assert (tmp_path / CHECKPOINT).exists()


def test_commands_of_the_readme_exist(run: Callable[..., Done]) -> None:
    text = (REPOSITORY / "training" / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^python -m training (\w+)(.*)$", text, re.MULTILINE)
    assert {command for command, _ in commands} == {info.callback.__name__ for info in cli.app.registered_commands if info.callback}
    for command, rest in commands:
        listed = run(command, "--help").out
        assert all(option in listed for option in re.findall(r"--[\w-]+", rest))


def test_help_loads_no_torch() -> None:
    heavy = "import sys, training.cli; sys.exit(' '.join({'torch', 'pandas', 'sklearn'} & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", heavy], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    listed = subprocess.run([sys.executable, "-m", "training", "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert all(command in listed.stdout for command in ("fit", "evaluate", "ship"))
