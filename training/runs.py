"""One run: it teaches by a recipe, tells how it goes, and ends with a calibrated weights file."""

from __future__ import annotations

import dataclasses
import datetime
import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import typer

from batchemo.atomic import replacing, write_text
from batchemo.errors import WeightsError
from batchemo.network import ExpressionNet, multiply_adds
from batchemo.records import EMOTIONS
from batchemo.weights import SHIPPED, Weights, half_precision, load_weights, save_weights, sidecar
from training.calibration import fit_temperature
from training.console import say
from training.evaluation import evaluate
from training.fitting import Epoch, fit, predict
from training.material import Material
from training.precision import with_ranges
from training.recipe import METHODS, Recipe

WEIGHTS = "weights.safetensors"


def changed(recipe: Recipe, *, epochs: int | None, seed: int | None) -> Recipe:
    """The recipe with what the command line says instead."""
    given: dict[str, Any] = {"epochs": epochs, "seed": seed}
    return dataclasses.replace(recipe, **{name: value for name, value in given.items() if value is not None})


def origin_of(recipe: Recipe, path: Path, start: Weights | None, material: Material, *, teachers: Sequence[Weights] = ()) -> dict[str, Any]:
    """Where weights come from: what their model card says of their training."""
    return {
        "recipe": path.stem,
        "epochs": recipe.epochs,
        "seed": recipe.seed,
        "trained_on": len(material.training),
        "learned_from_votes": recipe.needs_votes or any(each.figures.get("learned_from_votes") for each in teachers),
        **{name: getattr(recipe, name) for name in METHODS if getattr(recipe, name)},
        **({"start_sha256": start.sha256} if start else {}),
        **({"teachers_sha256": [each.sha256 for each in teachers]} if teachers else {}),
    }


def teach(
    recipe: Recipe,
    material: Material,
    *,
    folder: Path,
    device: torch.device,
    start: ExpressionNet | None,
    teachers: Sequence[ExpressionNet] = (),
) -> ExpressionNet:
    """Fits and tells how it goes; Ctrl-C is exit 130."""
    say(f"{len(material.training)} pictures to train on, {len(material.held_back)} to calibrate and evaluate on: {material.name}")
    say(f"{recipe.epochs} epochs on {device}, in {folder}")
    try:
        return fit(
            recipe,
            material.training,
            validation=material.held_back,
            folder=folder,
            device=device,
            report=lambda done: say(progress(recipe, done)),
            start=start,
            teachers=teachers,
        )
    except KeyboardInterrupt:
        say("interrupted; the same command goes on after the last whole epoch")
        raise typer.Exit(130) from None


def finish(
    path: Path,
    network: ExpressionNet,
    material: Material,
    *,
    origin: dict[str, Any],
    device: torch.device,
    labels: tuple[str, ...] = EMOTIONS,
) -> None:
    """Calibrates and evaluates `network` as it will be stored, measures its ranges, and writes `path` with its hash."""
    stored = half_precision(network)
    logits, truth = predict(stored.to(device), material.held_back.pixels, device).numpy(), material.held_back.labels.numpy()
    clean = material.clean.numpy()
    # A network is surer of pictures that it has been trained on than it may be of others.
    temperature = fit_temperature(logits[clean], truth[clean])
    measured = evaluate(logits, truth, temperature=temperature, clean=clean, names=labels)
    figures = {
        **{key: round(measured[key], 5) for key in ("accuracy", "macro_f1", "ece", "ece_cross_fitted")},
        "accuracy_clean": round(measured["clean"]["accuracy"], 5),
        "n": measured["n"],
        "split": material.name,
        **origin,
        "multiply_adds": multiply_adds(stored.cpu()),
        "parameters": sum(parameter.numel() for parameter in stored.parameters()),
    }
    write(path, with_ranges(Weights(stored, labels, temperature, "", figures), material.training, material.held_back))
    say(
        f"{material.name}: accuracy {measured['accuracy']:.2%}, {measured['clean']['accuracy']:.2%} of those unseen in training, "
        f"macro-F1 {measured['macro_f1']:.3f}, ECE {measured['ece_cross_fitted']:.3f} (cross-fitted), temperature {temperature:.3f}"
    )


def load(weights: Path | None) -> Weights:
    """The weights at that path, or the shipped ones. Raises WeightsError where they read other labels than FER2013's."""
    path = SHIPPED if weights is None else weights
    loaded = load_weights(path)
    if loaded.labels != EMOTIONS:
        raise WeightsError(f"{path} tells apart {', '.join(loaded.labels)}, where FER2013 has {', '.join(EMOTIONS)}; give other weights")
    return loaded


def write(path: Path, weights: Weights) -> None:
    """Writes `path`, whole or not at all, and its hash."""
    told: dict[str, Any] = {
        "labels": weights.labels,
        "temperature": weights.temperature,
        "figures": weights.figures,
        "ranges": weights.ranges,
    }
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / path.name
        place(source, path, save_weights(source, weights.network, **told))


def place(source: Path, target: Path, sha256: str) -> None:
    """Copies a weights file and writes its hash. Stopped in between, the two disagree and `load_weights` refuses them."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    write_text(sidecar(target), f"{sha256}  {target.name}\n")


def progress(recipe: Recipe, done: Epoch) -> str:
    """One line. What is left is reckoned from the last epoch: its time grows with the area of the pictures."""
    areas_left = sum(recipe.size_px(epoch) ** 2 for epoch in range(done.epoch + 1, recipe.epochs))
    left_s = done.seconds * areas_left / done.size_px**2
    accuracy = "" if math.isnan(done.validation_accuracy) else f"  validation {done.validation_accuracy:.2%}"
    left = f"  {datetime.timedelta(seconds=round(left_s))} left" if areas_left else ""
    return f"epoch {done.epoch + 1}/{recipe.epochs}  {done.size_px} px  loss {done.loss:.4f}{accuracy}  {done.seconds:.1f} s{left}"
