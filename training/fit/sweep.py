"""Hyperparameter sweeps: many short trainings, compared on the held-back pictures."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import itertools
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from joblib.externals.loky import get_reusable_executor

from batchemo.atomic import replacing, write_text
from batchemo.emotion.model import multiply_adds
from batchemo.errors import DataError
from training.data.holdout import Holdout
from training.evaluate.calibration import fit_temperature
from training.evaluate.classification import classification_figures
from training.fit.trainer import fit_network
from training.inference import predict
from training.recipe import Recipe, build_recipe, check_keys, read_values, to_toml

RECIPE_FILE, RESULT_FILE, RESULTS_FILE = "recipe.toml", "result.json", "results.csv"

MEASURED = ("accuracy_clean", "accuracy", "macro_f1", "nll", "parameters", "multiply_adds", "seconds")
"""Results of a trial, on the held-back pictures; `accuracy_clean` is of those without a copy in the training set."""

_KEYS = {"recipe": "", "draws": 0, "seed": 0, "vary": {}}
_RANGE = {"low", "high", "log"}


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """One training of a sweep. `varied` holds the values that the sweep chose, by dotted names."""

    varied: dict[str, Any]
    recipe: Recipe


def read_sweep(path: Path, *, epochs: int | None = None) -> list[Trial]:
    """The trials of a TOML file with `recipe` (the base, a path relative to the file) and a table `vary` with keys of a recipe.

    The values of a key are a list; every combination is a trial. With `draws`, so many random trials are drawn by `seed` instead, and a
    range `{low = ..., high = ..., log = true}` may replace a list. Raises DataError if the file is no sweep, or a trial no recipe.
    """
    values = read_values(path)
    check_keys(values, list(_KEYS), str(path))
    for key, default in _KEYS.items():
        if not isinstance(values.get(key, default), type(default)):
            raise DataError(f"{path}: {key} cannot be {values[key]!r}")
    if not values.get("recipe") or not values.get("vary"):
        raise DataError(f'{path}: a sweep names its recipe, as in recipe = "shipped.toml", and has a table [vary] of lists or ranges')
    base = read_values(path.parent / values["recipe"])
    choices = _flatten(values["vary"], path)
    draws = int(values.get("draws", 0))
    chosen = _drawn(choices, draws, int(values.get("seed", 0))) if draws else _grid(choices, path)
    # Equal draws are one trial.
    return list({(trial := Trial(varied, _recipe(base, varied, path, epochs))).recipe: trial for varied in chosen}.values())


def run_sweep(trials: Sequence[Trial], holdout: Holdout, *, folder: Path, device: torch.device, workers: int) -> Iterator[dict[str, Any]]:
    """Yields the result of each trial as it ends. Results of an earlier call come at once.

    Each trial has its own folder in `folder`, and resumes after its last whole epoch. A failed trial is a result with an `error`. At the
    end `folder`/results.csv has all results, the best first.
    """
    digest = holdout.digest()
    folders = [folder / _name(trial.recipe, digest) for trial in trials]
    jobs = (
        joblib.delayed(_run)(trial, holdout, folder=each, device=device, single_thread=workers > 1)
        for trial, each in zip(trials, folders, strict=True)
    )
    results = []
    try:
        for result in joblib.Parallel(n_jobs=workers, return_as="generator_unordered")(jobs):
            results.append(result)
            yield result
    finally:
        if workers > 1:  # joblib would keep them for minutes
            get_reusable_executor().shutdown(wait=True)
    _write_results(folder / RESULTS_FILE, rank_trials(results))


def rank_trials(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best first, failed trials last."""
    return sorted(results, key=lambda result: (bool(result["error"]), -float(result.get("accuracy_clean", 0)), result["trial"]))


def _flatten(table: Mapping[str, Any], path: Path, before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{before}{key}"
        if isinstance(value, dict) and not {"low", "high"} <= value.keys():
            found |= _flatten(value, path, f"{name}.")
        elif isinstance(value, dict):
            found[name] = _checked_range(value, f"{path}: {name}")
        elif isinstance(value, list) and value:
            found[name] = value
        else:
            raise DataError(f"{path}: {name} must be a list of values or a range {{low = ..., high = ...}}, not {value!r}")
    return found


def _checked_range(value: dict[str, Any], where: str) -> dict[str, Any]:
    check_keys(value, sorted(_RANGE), where)
    low, high = value["low"], value["high"]
    numbers = all(isinstance(bound, (int, float)) and not isinstance(bound, bool) for bound in (low, high))
    if not numbers or low >= high or (value.get("log") and low <= 0):
        raise DataError(f"{where}: low must be a number below high, and above 0 where log is true")
    return value


def _grid(choices: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    ranges = [name for name, choice in choices.items() if isinstance(choice, dict)]
    if ranges:
        raise DataError(f"{path}: {', '.join(ranges)}: a range has no end of values; say how many trials to draw, as in draws = 8")
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def _drawn(choices: dict[str, Any], draws: int, seed: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    return [{name: _draw(choice, random) for name, choice in choices.items()} for _ in range(draws)]


def _draw(choice: Any, random: np.random.Generator) -> Any:
    if isinstance(choice, list):
        return choice[int(random.integers(len(choice)))]
    low, high = choice["low"], choice["high"]
    if isinstance(low, int) and isinstance(high, int):
        return int(random.integers(low, high + 1))
    if choice.get("log"):
        return float(f"{math.exp(random.uniform(math.log(low), math.log(high))):.4g}")
    return float(f"{random.uniform(low, high):.4g}")


def _recipe(base: Mapping[str, Any], varied: Mapping[str, Any], path: Path, epochs: int | None) -> Recipe:
    values = json.loads(json.dumps(base))
    for name, value in varied.items():
        *tables, key = name.split(".")
        target = values
        for table in tables:
            target = target.setdefault(table, {})
        target[key] = value
    if epochs is not None:
        values["epochs"] = epochs
    return build_recipe(values, path)


def _name(recipe: Recipe, digest: str) -> str:
    text = json.dumps(dataclasses.asdict(recipe), sort_keys=True)
    return "trial-" + hashlib.sha256(f"{digest} {text}".encode()).hexdigest()[:10]


def _run(trial: Trial, holdout: Holdout, *, folder: Path, device: torch.device, single_thread: bool) -> dict[str, Any]:
    done = folder / RESULT_FILE
    row = {"trial": folder.name, **trial.varied}
    if done.exists():
        known = json.loads(done.read_text(encoding="utf-8"))
        return row | {key: known[key] for key in (*MEASURED, "error") if key in known}
    if single_thread:
        torch.set_num_threads(1)
    started = time.monotonic()
    write_text(folder / RECIPE_FILE, to_toml(trial.recipe))
    result: dict[str, Any] = row | {"error": ""}
    try:
        network = fit_network(trial.recipe, holdout.training, validation=None, folder=folder, device=device, report=lambda _: None)
    except DataError as error:
        result["error"] = str(error)
    else:
        logits, labels = predict(network.to(device), holdout.held_back.pixels, device).numpy(), holdout.held_back.labels.numpy()
        clean = holdout.clean.numpy()
        figures = classification_figures(logits, labels, temperature=fit_temperature(logits[clean], labels[clean]), clean=clean)
        result |= {key: figures[key] for key in ("accuracy", "macro_f1", "nll")}
        result["accuracy_clean"] = figures["clean"]["accuracy"]
        result["parameters"] = sum(parameter.numel() for parameter in network.parameters())
        result["multiply_adds"] = multiply_adds(network.cpu())
    result["seconds"] = round(time.monotonic() - started, 1)
    write_text(done, json.dumps(result))
    return result


def _write_results(path: Path, results: Sequence[dict[str, Any]]) -> None:
    varied = list(dict.fromkeys(key for result in results for key in result if key not in {"trial", "error", *MEASURED}))
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["trial", *varied, *MEASURED, "error"])
        writer.writeheader()
        writer.writerows(results)
