"""The command line: from a csv to evaluated weights, and mistakes in one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from batchemo.emotion.model import ExpressionNet
from batchemo.emotion.weights import load_weights, save_weights
from tests.patterns import Done, row, rows, write_csv
from training import cli
from training.fit import run as run_module
from training.fit.checkpoint import CHECKPOINT

REPOSITORY = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
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
        (("evaluate", weights, "--data", data), "has the labels a, b, c"),
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

    monkeypatch.setattr(run_module, "progress_line", interrupt)
    done = run("fit", recipe_file, "--data", data, "--out", tmp_path)
    assert done.code == 130
    assert "the same command goes on after the last whole epoch" in done.err
    assert (tmp_path / CHECKPOINT).exists()


@pytest.mark.slow
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
