"""Training: from a csv or folders to a weights file, on small patterns that a small network can tell apart."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from batchemo.emotion.model import ExpressionNet, NetworkSpec
from batchemo.errors import DataError
from tests.patterns import CPU, train
from training.data.fer2013 import VOTES, read_split
from training.fit.checkpoint import CHECKPOINT
from training.fit.trainer import Epoch, fit_network
from training.inference import predict
from training.recipe import Recipe

REPOSITORY = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("one_thread")


def same_weights(one: ExpressionNet, other: ExpressionNet) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


# Fitting


def test_a_network_learns(fitted: ExpressionNet, data: Path) -> None:
    unseen = read_split(data, "PublicTest")
    accuracy = (predict(fitted, unseen.pixels, CPU).argmax(1) == unseen.labels).float().mean()
    assert accuracy > 0.6  # chance: 0.14


@pytest.mark.slow
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
    fit_network(short, faces, validation=None, folder=tmp_path, device=CPU, report=lambda _: None)
    if changed == "recipe":
        short = dataclasses.replace(short, learning_rate=0.01)
    elif changed == "pictures":
        faces = faces.subset(torch.arange(len(faces) - 1))
    else:
        (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:3000])
    with pytest.raises(DataError, match=message):
        fit_network(short, faces, validation=None, folder=tmp_path, device=CPU, report=lambda _: None)


def test_a_run_begins_with_the_weights_it_is_given(fitted: ExpressionNet, recipe: Recipe, data: Path, tmp_path: Path) -> None:
    still = dataclasses.replace(recipe, learning_rate=1e-12, epochs=1)
    faces = read_split(data, "Training")
    same = fit_network(still, faces, validation=None, folder=tmp_path, device=torch.device("cpu"), report=lambda _: None, start=fitted)
    for before, after in zip(fitted.parameters(), same.parameters(), strict=True):
        assert torch.allclose(before, after, atol=1e-5)
    other = dataclasses.replace(recipe, network=NetworkSpec(stem=8, widths=(16, 16), blocks=(1, 1)))
    with pytest.raises(DataError, match="the weights to start from: those are of"):
        fit_network(other, faces, validation=None, folder=tmp_path / "x", device=torch.device("cpu"), report=lambda _: None, start=fitted)


def test_too_few_pictures_for_a_batch_are_refused(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    few = read_split(data, "Training").subset(torch.arange(7))
    with pytest.raises(DataError, match="7 pictures do not fill one batch of 8; lower batch_size"):
        fit_network(recipe, few, validation=None, folder=tmp_path, device=CPU, report=lambda _: None)


def test_a_recipe_that_explodes_says_what_to_change(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lower learning_rate"):
        train(dataclasses.replace(recipe, learning_rate=1e30, warmup_epochs=0.0), data, tmp_path)


def test_a_recipe_learns_from_votes_and_asks_for_them(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    voting = dataclasses.replace(recipe, votes_share=0.5, votes_weight=0.3, epochs=1)
    faces = read_split(data, "Training").subset(torch.arange(42))
    with pytest.raises(DataError, match=r"fer2013new\.csv with --votes"):
        fit_network(voting, faces, validation=None, folder=tmp_path / "none", device=CPU, report=lambda _: None)
    assert not (tmp_path / "none").exists()
    faces = dataclasses.replace(faces, votes=torch.randint(0, 10, (len(faces), len(VOTES)), generator=torch.Generator().manual_seed(0)))

    def learn(name: str, recipe: Recipe) -> ExpressionNet:
        return fit_network(recipe, faces, validation=None, folder=tmp_path / name, device=CPU, report=lambda _: None)

    both, targets_alone = learn("both", voting), learn("targets", dataclasses.replace(voting, votes_weight=0.0))
    assert not same_weights(both, targets_alone), "the second head taught nothing"
    assert not same_weights(targets_alone, learn("none", dataclasses.replace(recipe, epochs=1))), "the softer targets taught nothing"
