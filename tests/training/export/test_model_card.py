"""The model card in the package says what was measured, of the weights in the package; shipping writes it anew."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchemo.emotion.model import ExpressionNet
from batchemo.emotion.weights import SHIPPED, load_weights, read_weights_file, save_weights
from batchemo.errors import DataError
from batchemo.options import RunOptions
from batchemo.records import EMOTIONS
from tests.patterns import Done, row, write_csv
from training.evaluate.degradation import DEGRADATIONS
from training.export.model_card import CARD, check_same_data, figures_path, render_card
from training.fit.averaging import shared_origin

ROOT = Path(__file__).parents[3]
AGAIN = "write it anew: python -m training card --data fer2013.csv --votes fer2013new.csv"


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(figures_path(SHIPPED).read_text())
    return figures


def test_the_card_in_the_package_is_of_its_weights_and_figures(shipped: dict[str, Any]) -> None:
    assert render_card(read_weights_file(), shipped) == SHIPPED.with_name(CARD).read_text(), AGAIN


def test_the_figures_in_the_package_are_those_that_the_weights_give(shipped: dict[str, Any]) -> None:
    file = read_weights_file()
    assert shipped["weights_sha256"] == file.sha256, AGAIN
    assert (shipped["n"], shipped["split"]) == (file.figures["n"], file.figures["split"])
    assert shipped["temperature"] == pytest.approx(file.temperature, abs=1e-5)
    for key in ("accuracy", "macro_f1", "ece", "ece_cross_fitted"):
        assert shipped[key] == pytest.approx(file.figures[key], abs=1e-3), (key, AGAIN)
    assert shipped["clean"]["accuracy"] == pytest.approx(file.figures["accuracy_clean"], abs=1e-3)
    assert list(shipped["degraded"]) == [*DEGRADATIONS, "mean"]
    assert shipped["ferplus"]["n"] > 3000


def test_the_card_says_what_a_card_must(shipped: dict[str, Any]) -> None:
    text = SHIPPED.with_name(CARD).read_text()
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    # Mitchell et al. 2019, section 4.
    assert titles == [
        "Model details",
        "Intended use",
        "Factors",
        "Metrics",
        "Evaluation data",
        "Training data",
        "Quantitative analyses",
        "Ethical considerations",
        "Caveats and recommendations",
    ]
    flat = " ".join(text.split())
    for words in ("article 5(1)(f)", "*apparent expression as annotators would label it*", "It says nothing of what a person feels"):
        assert words in flat
    assert "whether errors differ by age, sex, skin colour, culture or disability is untested" in flat
    for emotion, part in shipped["per_class"].items():
        low, high = part["recall_interval"]
        assert f"| {emotion} | {part['support']} |" in text
        assert f"{100 * part['recall']:.1f} ({100 * low:.1f} to {100 * high:.1f})" in text
    assert all(degradation.meaning in text for degradation in DEGRADATIONS.values())


def test_the_readme_says_of_the_weights_what_the_card_says(shipped: dict[str, Any]) -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    default = next(point for point in shipped["coverage"] if point["threshold"] == RunOptions().uncertain_below)
    assert f"marks {1 - default['coverage']:.0%}, and {default['accuracy']:.0%}".replace("%", " %") in readme
    assert f"name {100 * shipped['accuracy']:.1f} % of FER2013's PublicTest right" in readme
    assert f"{100 * shipped['clean']['accuracy']:.1f} % of the pictures that do not stand in the training part" in readme


@pytest.mark.parametrize(
    ("key", "value"), [("n", 3588), ("split", "PrivateTest"), ("accuracy", 0.5)], ids=["other number", "other split", "other accuracy"]
)
def test_figures_of_other_pictures_are_refused(key: str, value: object, shipped: dict[str, Any]) -> None:
    stored = read_weights_file().figures
    check_same_data(shipped, stored)
    with pytest.raises(DataError, match="give the same pictures with --data"):
        check_same_data(shipped | {key: value}, stored)
    with pytest.raises(DataError, match="do not say what they reach"):
        check_same_data(shipped, {})


def test_figures_of_other_weights_are_refused(shipped: dict[str, Any]) -> None:
    other = dataclasses.replace(read_weights_file(), sha256="0" * 64)
    with pytest.raises(DataError, match="the figures are of other weights; write the card anew"):
        render_card(other, shipped)


def test_a_card_tells_how_weights_were_trained(shipped: dict[str, Any]) -> None:
    file = read_weights_file()
    origin = {"seed": 7, "start_sha256": "abcdef0123", "trained_on": 28559, "learned_from_votes": True, "recipe": "votes", "epochs": 44}
    alone = origin | {"average_of": None}
    text = " ".join(render_card(dataclasses.replace(file, figures=file.figures | alone), shipped).split())
    assert "recipe `votes`, 44 epochs, seed 7, starting from the weights `abcdef01`" in text
    assert "(28,559 were trained on" in text
    assert "The mean of" not in text
    assert "what the votes of FER+ (Barsoum et al. 2016) make likely" in text
    methods = {
        "teacher_share": "what other networks made of the same pictures",
        "mirror_weight": "together with its mirror image",
    }
    for name, words in methods.items():
        for value in (0.5, None):
            figures = file.figures | dict.fromkeys(methods) | {name: value}
            text = " ".join(render_card(dataclasses.replace(file, figures=figures), shipped).split())
            assert (words in text) == bool(value)
    parts = [origin | {"seed": seed, "epochs": 44} for seed in (2, 3)]
    average = {"average_of": ["a" * 64, "b" * 64], **shared_origin(parts)}
    kept = {key: value for key, value in file.figures.items() if key not in origin}
    text = " ".join(render_card(dataclasses.replace(file, figures=kept | average), shipped).split())
    assert (
        "recipe `votes`, 44 epochs, starting from the weights `abcdef01`. The mean of 2 networks that began from the same weights." in text
    )


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_shipping_puts_a_checked_file_and_its_card_in_the_package(
    run: Callable[..., Done], recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package" / "fer2013.safetensors"
    monkeypatch.setattr("batchemo.emotion.weights.SHIPPED", package)
    weights = tmp_path / "run" / "weights.safetensors"
    assert run("fit", recipe_file, "--data", data, "--out", weights.parent, "--epochs", 1).code == 0

    other = write_csv(tmp_path / "other.csv", [row(label, 3, usage) for usage in ("Training", "PublicTest") for label in range(7)])
    done = run("ship", weights, "--data", other)
    assert done.code == 2
    assert not package.parent.exists()

    done = run("ship", weights, "--data", data)
    assert (done.code, done.out) == (0, f"{package}\n")
    loaded = load_weights(package)
    figures = json.loads(figures_path(package).read_text())
    assert loaded.sha256 == load_weights(weights).sha256 == figures["weights_sha256"]
    assert figures["accuracy"] == pytest.approx(loaded.figures["accuracy"], abs=1e-5)
    assert package.with_name(CARD).read_text() == render_card(read_weights_file(package), figures)

    before = {path: path.read_bytes() for path in package.parent.iterdir()}
    weights.write_bytes(weights.read_bytes()[:-1])
    assert run("ship", weights, "--data", data).code == 2
    assert {path: path.read_bytes() for path in package.parent.iterdir()} == before


@pytest.mark.usefixtures("one_thread")
def test_a_card_is_written_beside_any_weights(run: Callable[..., Done], fitted: ExpressionNet, data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "net.safetensors"
    save_weights(weights, fitted, labels=EMOTIONS, temperature=1.0, figures={"accuracy": 0.2, "n": 56, "split": "PublicTest"})
    done = run("card", weights, "--data", data)
    assert done.code == 2
    assert "the weights say that they reach 20.00% of 56 pictures of PublicTest" in done.err
    assert not (tmp_path / CARD).exists()
