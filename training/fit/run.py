"""Runs a training: reports its progress, and ends with a calibrated and evaluated weights file."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import typer

from batchemo.emotion.model import ExpressionNet, multiply_adds
from batchemo.emotion.weights import Weights, half_precision
from batchemo.records import EMOTIONS
from training.console import say
from training.data.holdout import Holdout
from training.evaluate.calibration import fit_temperature
from training.evaluate.classification import classification_figures
from training.evaluate.quantization import with_int8_ranges
from training.export.weights_file import write_weights
from training.fit.trainer import Epoch, fit_network
from training.inference import predict
from training.recipe import METHODS, Recipe


def with_overrides(recipe: Recipe, *, epochs: int | None, seed: int | None) -> Recipe:
    """`recipe` with the values that the command line gives."""
    given: dict[str, Any] = {"epochs": epochs, "seed": seed}
    return dataclasses.replace(recipe, **{name: value for name, value in given.items() if value is not None})


def provenance(recipe: Recipe, path: Path, start: Weights | None, holdout: Holdout, *, teachers: Sequence[Weights] = ()) -> dict[str, Any]:
    """Figures about the training, for the weights file and its model card."""
    return {
        "recipe": path.stem,
        "epochs": recipe.epochs,
        "seed": recipe.seed,
        "trained_on": len(holdout.training),
        "learned_from_votes": recipe.needs_votes or any(each.figures.get("learned_from_votes") for each in teachers),
        **{name: getattr(recipe, name) for name in METHODS if getattr(recipe, name)},
        **({"start_sha256": start.sha256} if start else {}),
        **({"teachers_sha256": [each.sha256 for each in teachers]} if teachers else {}),
    }


def run_training(
    recipe: Recipe,
    holdout: Holdout,
    *,
    folder: Path,
    device: torch.device,
    start: ExpressionNet | None,
    teachers: Sequence[ExpressionNet] = (),
) -> ExpressionNet:
    """Trains and reports each epoch. Ctrl-C raises typer.Exit(130)."""
    say(f"{len(holdout.training)} pictures to train on, {len(holdout.held_back)} to calibrate and evaluate on: {holdout.name}")
    say(f"{recipe.epochs} epochs on {device}, in {folder}")
    try:
        return fit_network(
            recipe,
            holdout.training,
            validation=holdout.held_back,
            folder=folder,
            device=device,
            report=lambda done: say(progress_line(recipe, done)),
            start=start,
            teachers=teachers,
        )
    except KeyboardInterrupt:
        say("interrupted; the same command goes on after the last whole epoch")
        raise typer.Exit(130) from None


def finish_run(
    path: Path,
    network: ExpressionNet,
    holdout: Holdout,
    *,
    origin: dict[str, Any],
    device: torch.device,
    labels: tuple[str, ...] = EMOTIONS,
) -> None:
    """Calibrates and evaluates `network` in half precision, as it is stored, measures its int8 ranges, and writes `path` with its hash."""
    stored = half_precision(network)
    logits, truth = predict(stored.to(device), holdout.held_back.pixels, device).numpy(), holdout.held_back.labels.numpy()
    clean = holdout.clean.numpy()
    # On pictures that it was trained on, a network is too confident.
    temperature = fit_temperature(logits[clean], truth[clean])
    measured = classification_figures(logits, truth, temperature=temperature, clean=clean, names=labels)
    figures = {
        **{key: round(measured[key], 5) for key in ("accuracy", "macro_f1", "ece", "ece_cross_fitted")},
        "accuracy_clean": round(measured["clean"]["accuracy"], 5),
        "n": measured["n"],
        "split": holdout.name,
        **origin,
        "multiply_adds": multiply_adds(stored.cpu()),
        "parameters": sum(parameter.numel() for parameter in stored.parameters()),
    }
    write_weights(path, with_int8_ranges(Weights(stored, labels, temperature, "", figures), holdout.training, holdout.held_back))
    say(
        f"{holdout.name}: accuracy {measured['accuracy']:.2%}, {measured['clean']['accuracy']:.2%} of those unseen in training, "
        f"macro-F1 {measured['macro_f1']:.3f}, ECE {measured['ece_cross_fitted']:.3f} (cross-fitted), temperature {temperature:.3f}"
    )


def progress_line(recipe: Recipe, done: Epoch) -> str:
    """One line for people. The remaining time assumes that an epoch takes time in proportion to the area of the pictures."""
    areas_left = sum(recipe.size_px(epoch) ** 2 for epoch in range(done.epoch + 1, recipe.epochs))
    left_s = done.seconds * areas_left / done.size_px**2
    accuracy = "" if math.isnan(done.validation_accuracy) else f"  validation {done.validation_accuracy:.2%}"
    left = f"  {datetime.timedelta(seconds=round(left_s))} left" if areas_left else ""
    return f"epoch {done.epoch + 1}/{recipe.epochs}  {done.size_px} px  loss {done.loss:.4f}{accuracy}  {done.seconds:.1f} s{left}"
