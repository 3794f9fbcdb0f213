"""Sweeps: what a file asks for becomes trials, trials become a table, and what has ended is not done again."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from batchemo.emotion.model import NetworkSpec
from batchemo.emotion.weights import load_weights
from batchemo.errors import DataError
from tests.patterns import QUICK, Done
from training.data.synthetic import write_synthetic_csv
from training.fit.checkpoint import CHECKPOINT
from training.fit.sweep import RESULT_FILE, read_sweep
from training.recipe import RECIPES, to_toml

SWEEPS = RECIPES.parent / "sweeps"
BASE = dataclasses.replace(QUICK, network=NetworkSpec(stem=8, widths=(8,), blocks=(1,)))

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    (tmp_path / "base.toml").write_text(to_toml(BASE))

    def sweep(text: str) -> Path:
        path = tmp_path / "sweep.toml"
        path.write_text('recipe = "base.toml"\n' + text)
        return path

    return sweep


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_synthetic_csv(tmp_path / "fer2013.csv", training=4, test=4)
    return tmp_path / "fer2013.csv"


def test_lists_are_tried_in_every_combination(write: Callable[[str], Path]) -> None:
    trials = read_sweep(write("[vary]\nlearning_rate = [0.1, 0.2]\nnetwork.widths = [[8], [16]]\n[vary.augmentation]\nerase = [0.5]"))
    assert [(trial.recipe.learning_rate, trial.recipe.network.widths) for trial in trials] == [
        (0.1, (8,)), (0.1, (16,)), (0.2, (8,)), (0.2, (16,))
    ]  # fmt: skip
    assert trials[0].varied == {"learning_rate": 0.1, "network.widths": [8], "augmentation.erase": 0.5}
    assert all(trial.recipe.batch_size == 16 for trial in trials)


def test_draws_are_within_their_ranges_and_repeat_by_their_seed(write: Callable[[str], Path]) -> None:
    text = "draws = 40\n[vary]\nlearning_rate = {low = 1e-4, high = 1.0, log = true}\nbatch_size = {low = 4, high = 9}\nepochs = [1, 2]"
    path = write(text)
    trials = read_sweep(path)
    rates = [trial.recipe.learning_rate for trial in trials]
    assert all(1e-4 <= rate <= 1 for rate in rates)
    assert sum(rate < 1e-2 for rate in rates) in range(10, 31)  # half of them, were it many: the scale is logarithmic
    assert {trial.recipe.batch_size for trial in trials} <= set(range(4, 10))
    assert {trial.recipe.epochs for trial in trials} == {1, 2}
    assert read_sweep(path) == trials
    assert read_sweep(write("seed = 1\n" + text)) != trials
    assert len(read_sweep(write("draws = 40\n[vary]\nepochs = [1, 2]"))) == 2  # the same draw is one trial
    assert {trial.recipe.epochs for trial in read_sweep(path, epochs=7)} == {7}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[vary]\nlearning_rat = [1.0]", "unknown key 'learning_rat'; did you mean 'learning_rate'?"),
        ("[vary]\nlearning_rate = ['fast']", "learning_rate cannot be 'fast'"),
        ("[vary]\nlearning_rate = {low = 1e-3, high = 0.1}", "say how many trials to draw, as in draws = 8"),
        ("draws = 2\n[vary]\nlearning_rate = {low = 0.0, high = 0.1, log = true}", "above 0 where log is true"),
        ("draws = 2\n[vary]\nlearning_rate = {low = 0.2, high = 0.1}", "low must be a number below high"),
        ("[vary]\nlearning_rate = 0.1", "learning_rate must be a list of values or a range"),
        ("[varry]\nlearning_rate = [0.1]", "unknown key 'varry'; did you mean 'vary'?"),
        ("draws = 'two'\n[vary]\nlearning_rate = [0.1]", "draws cannot be 'two'"),
        ("", "has a table \\[vary\\]"),
        ("[vary.network]\nblocks = [[1, 1, 1, 1, 1]]", "stages of blocks"),
    ],
)
def test_a_wrong_sweep_says_what_is_wrong(write: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"sweep\.toml.*{message}".replace("?", r"\?")):
        read_sweep(write(text))


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_sweeps_that_come_along_can_be_read(path: Path) -> None:
    assert len(read_sweep(path, epochs=1)) > 2


@pytest.mark.slow
def test_a_sweep_ends_in_a_table_with_the_best_first_and_a_command(
    run: Callable[..., Done], write: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    sweep, out = write("[vary]\nlearning_rate = [0.05, 1e-9, 1e30]"), tmp_path / "out"
    code, printed, messages = run("sweep", sweep, "--data", data, "--out", out, "--workers", 1, "--epochs", 3)
    assert code == 0
    with (out / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert float(rows[0]["accuracy_clean"]) >= float(rows[1]["accuracy_clean"])
    assert (rows[2]["learning_rate"], rows[2]["accuracy"]) == ("1e+30", "")
    assert "lower learning_rate" in rows[2]["error"]
    assert printed.index(rows[0]["trial"]) < printed.index(rows[1]["trial"]) < printed.index(rows[2]["trial"])

    best = out / rows[0]["trial"]
    command = f"python -m training fit {best / 'recipe.toml'} --data {data} --out {best}"
    assert command in messages
    code, printed, messages = run(*command.split()[3:])
    assert (code, printed) == (0, f"{best / 'weights.safetensors'}\n")
    assert "epoch" not in messages.split("epochs on")[1].split("\n", 1)[1].split("PublicTest:")[0]  # it has been trained already
    assert load_weights(best / "weights.safetensors").figures["accuracy"] == pytest.approx(float(rows[0]["accuracy"]), abs=0.04)


def test_what_has_ended_is_not_done_again(run: Callable[..., Done], write: Callable[[str], Path], data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("--data", data, "--out", out, "--workers", 1)
    assert run("sweep", write("[vary]\nseed = [1, 2]"), *arguments)[0] == 0
    done = {path: path.stat().st_mtime_ns for path in out.glob(f"*/{RESULT_FILE}")}
    assert len(done) == 2
    for path in out.glob(f"*/{CHECKPOINT}"):
        path.unlink()
    assert run("sweep", write("[vary]\nseed = [1, 2, 3]"), *arguments)[0] == 0
    assert len(list(out.glob(f"*/{CHECKPOINT}"))) == 1
    assert all(path.stat().st_mtime_ns == before for path, before in done.items())
    assert len((out / "results.csv").read_text().splitlines()) == 4


@pytest.mark.slow
def test_trials_at_once_end_as_trials_in_turn(run: Callable[..., Done], write: Callable[[str], Path], data: Path, tmp_path: Path) -> None:
    sweep = write("[vary]\nseed = [1, 2]")
    found = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        assert run("sweep", sweep, "--data", data, "--out", out, "--workers", workers)[0] == 0
        results = [json.loads(path.read_text()) for path in sorted(out.glob(f"*/{RESULT_FILE}"))]
        found.append([{key: value for key, value in result.items() if key != "seconds"} for result in results])
    assert found[0] == found[1]
