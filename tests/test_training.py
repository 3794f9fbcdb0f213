"""Training: from a csv or folders to a weights file, on small patterns that a small network can tell apart."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from batchemo.emotion.model import ExpressionNet, NetworkSpec
from batchemo.emotion.weights import load_weights, save_weights
from batchemo.errors import DataError
from tests.patterns import CPU, Done, row, rows, train, write_csv
from training import cli, runs
from training.dataset import VOTES, read_split
from training.fitting import CHECKPOINT, Epoch, fit, predict
from training.recipe import RECIPES, Recipe, read_recipe

REPOSITORY = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("one_thread")


def same_weights(one: ExpressionNet, other: ExpressionNet) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


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
    with pytest.raises(DataError, match="the weights to start from: those are of"):
        fit(other, faces, validation=None, folder=tmp_path / "x", device=torch.device("cpu"), report=lambda _: None, start=fitted)


def test_too_few_pictures_for_a_batch_are_refused(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    few = read_split(data, "Training").subset(torch.arange(7))
    with pytest.raises(DataError, match="7 pictures do not fill one batch of 8; lower batch_size"):
        fit(recipe, few, validation=None, folder=tmp_path, device=CPU, report=lambda _: None)


def test_a_recipe_that_explodes_says_what_to_change(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lower learning_rate"):
        train(dataclasses.replace(recipe, learning_rate=1e30, warmup_epochs=0.0), data, tmp_path)


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
    assert (loaded.figures["seed"], loaded.figures["trained_on"], loaded.figures["learned_from_votes"]) == (0, 168, False)

    code, printed, _ = run("evaluate", weights, "--data", data, "--json")
    figures = json.loads(printed)
    assert code == 0
    assert figures["accuracy"] == pytest.approx(loaded.figures["accuracy"], abs=1e-5)
    assert (figures["weights_sha256"], figures["split"], figures["tta"]) == (loaded.sha256, "PublicTest", False)
    assert set(figures) >= {"accuracy_low", "accuracy_high", "balanced_accuracy", "macro_f1", "ece", "ece_cross_fitted", "nll", "brier"}
    assert set(figures) >= {"n", "per_class", "confusion", "clean", "coverage", "risk_coverage", "uncertain"}

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

    monkeypatch.setattr(runs, "progress", interrupt)
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
    heavy = (
        "import sys, training.cli; sys.exit(' '.join({'torch', 'pandas', 'sklearn', 'matplotlib', 'jinja2'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", heavy], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    listed = subprocess.run([sys.executable, "-m", "training", "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert all(command in listed.stdout for command in ("prepare", "fit", "evaluate", "explore", "card", "ship"))
