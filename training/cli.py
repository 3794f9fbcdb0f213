"""The command line of training: from a copy of FER2013 to a weights file, and what that file is worth.

stdout carries data only; messages go to stderr. Exit 2: the command, the data or the file is wrong.
"""

# ruff: noqa: PLC0415 (commands import what they need, so that --help is quick)
from __future__ import annotations

import dataclasses
import datetime
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from batchemo.errors import BatchemoError, DataError, WeightsError, typed
from batchemo.records import EMOTIONS

if TYPE_CHECKING:
    import torch

    from batchemo.network import ExpressionNet
    from batchemo.weights import Weights
    from training.dataset import FaceSet
    from training.fitting import Epoch
    from training.recipe import Recipe

RECIPE = Path(__file__).parent / "recipes" / "shipped.toml"
VOTING = RECIPE.with_name("votes.toml")
FINETUNING = RECIPE.with_name("finetune.toml")
WEIGHTS = "weights.safetensors"

_HELD_OUT_SHARE = 0.1

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Train the network of batchemo on FER2013."
)

Data = Annotated[
    Path, typer.Option("--data", help="fer2013.csv or icml_face_data.csv, or a folder with train/<emotion>/ and test/<emotion>/.")
]
Votes = Annotated[Path | None, typer.Option("--votes", help="fer2013new.csv of FER+.")]
Pixels = Literal["uint8", "float32"]
Device = Annotated[str, typer.Option("--device", help="auto (a GPU where there is one), cpu, or cuda:N.")]


def main() -> None:
    """Runs the command line; errors that are meant for people become one line and exit 2."""
    try:
        app()
    except BatchemoError as error:
        _say(f"error: {error}")
        raise SystemExit(2) from None


@app.command()
def fit(
    *,
    data: Data,
    recipe: Annotated[Path, typer.Argument(help="TOML file of hyperparameters.", show_default="training/recipes/shipped.toml")] = RECIPE,
    votes: Annotated[
        Path | None, typer.Option("--votes", help="fer2013new.csv of FER+: leaves out training pictures that are not of faces.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of this run; default: runs/<name of the recipe>.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Instead of the recipe's.")] = None,
    start: Annotated[Path | None, typer.Option("--start", help="Begin with these weights, not with random ones.")] = None,
    device: Device = "auto",
) -> None:
    """Train a network, calibrate and evaluate it, and write OUT/weights.safetensors.

    Stopped at any time, the same command goes on after the last whole epoch. Prints the path of the weights.
    """
    from batchemo.devices import choose_device
    from training.recipe import read_recipe

    chosen = _chosen(read_recipe(recipe), epochs=epochs, seed=seed)
    folder = out if out is not None else Path("runs") / recipe.stem
    target = choose_device(device)
    started_from = _load(start) if start is not None else None
    material = _material(data, votes, chosen.seed)
    network = _fit(chosen, material, folder=folder, device=target, start=started_from.network if started_from else None)
    path = folder / WEIGHTS
    _finish(path, network, material, origin=_origin(chosen, recipe, started_from, material), device=target)
    _say(f"next: python -m training evaluate {typed(path)} --data {typed(data)}")
    _say(f"or:   python -m training ship {typed(path)} --data {typed(data)}{f' --votes {typed(votes)}' if votes else ''}")
    print(path)


@app.command()
def prepare(
    *,
    data: Data,
    votes: Votes = None,
    recipe: Annotated[Path, typer.Option("--recipe", help="Whose changes to draw.", show_default="training/recipes/shipped.toml")] = RECIPE,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for samples.png, augmentations.png, statistics.json, duplicates.csv.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option("--write", help="Write the pictures at 48 px, to NAME.csv as fer2013.csv has them, or to a new folder.")
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            "--validation", min=0.01, max=0.9, help="With --write: share of each emotion's Training pictures that becomes PublicTest."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of what is drawn and split off.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a copy of FER2013, or pictures of your own: counts, what is missing, what is repeated, how it looks."""
    from training.dataset import read_splits
    from training.display import print_preparation
    from training.preparation import describe, split_off, write_pictures, write_statistics
    from training.recipe import read_recipe

    if validation is not None and write is None:
        raise DataError("--validation needs --write NAME.csv or --write FOLDER, where the parts go")
    augmentation = read_recipe(recipe).augmentation
    splits = read_splits(data, votes=votes, faces_only=False)
    parts = splits if validation is None else split_off(splits, share=validation, seed=seed)
    facts, groups = describe(splits, data)
    if write is not None:
        write_pictures(write, parts)
        _say(f"wrote {', '.join(f'{len(faces)} pictures of {split}' for split, faces in parts.items())} to {write}")
        _say(f"next: python -m training fit --data {typed(write)}")
    if out is not None:
        write_statistics(out, splits, facts, groups, augmentation=augmentation, recipe=recipe.name, seed=seed)
        _say(f"wrote statistics and pictures of samples to {out}; they are the data set's: do not publish them")
    if as_json:
        print(json.dumps(facts))
    else:
        print_preparation(facts)


@app.command()
def evaluate(
    *,
    data: Data,
    weights: Annotated[Path | None, typer.Argument(help="A weights file; default: the shipped one.")] = None,
    votes: Votes = None,
    split: Annotated[str, typer.Option("--split", help="Training, PublicTest or PrivateTest.")] = "PublicTest",
    tta: Annotated[bool, typer.Option("--tta", help="Average each picture with its mirror image.")] = False,
    degraded: Annotated[
        bool, typer.Option("--degraded", help="Also on small, compressed, blurred, dark, shifted, turned pictures.")
    ] = False,
    pictures: Annotated[Path | None, typer.Option("--pictures", help="Folder for confusion.png and risk_coverage.png.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: Device = "auto",
) -> None:
    """Measure a weights file on one split: all of it, and the part that does not stand in Training as well."""
    from batchemo.devices import choose_device
    from training.dataset import check_split, choose_split, read_splits
    from training.display import print_evaluation
    from training.measurement import measure

    check_split(split)
    target = choose_device(device)
    loaded = _load(weights)
    splits = read_splits(data, votes=votes, faces_only=False)
    _compare_with_published(split, choose_split(splits, split, data))
    if "Training" not in splits:
        _say(f"{data} has no pictures of the split Training, so those that were trained on cannot be told apart")
    figures = measure(loaded, splits, split=split, device=target, tta=tta, degraded=degraded, report=_say)
    if pictures is not None:
        from training.charts import write_charts

        for path in write_charts(pictures, figures):
            _say(f"wrote {path}")
    if as_json:
        print(json.dumps(figures))
    else:
        print_evaluation(figures)


@app.command()
def average(
    *,
    runs: Annotated[
        list[Path], typer.Argument(help="Weights files, or folders of runs, that began from the same weights.", metavar="RUN...")
    ],
    data: Data,
    votes: Votes = None,
    out: Annotated[Path, typer.Option("--out", help="Folder to write weights.safetensors to.")] = Path("runs/average"),
    refresh: Annotated[
        bool,
        typer.Option("--refresh-norms/--keep-norms", help="Measure the statistics of the norms anew on Training, or average them too."),
    ] = True,
    recipe: Annotated[
        Path,
        typer.Option("--recipe", help="The norms are measured on pictures changed as it says.", show_default="training/recipes/votes.toml"),
    ] = VOTING,
    device: Device = "auto",
) -> None:
    """Average the weights of several runs, calibrate and evaluate the result, and write OUT/weights.safetensors."""
    from batchemo.devices import choose_device
    from training.averaging import average as mean_of
    from training.averaging import changed_batches, refresh_norms, shared_origin
    from training.fitting import predict
    from training.recipe import read_recipe

    files = [path / WEIGHTS if path.is_dir() else path for path in runs]
    path = out / WEIGHTS
    if path.resolve() in [file.resolve() for file in files]:
        raise DataError(f"{path} is one of those to average; give another folder with --out")
    changes = read_recipe(recipe).augmentation
    target = choose_device(device)
    parts = [_load(file) for file in files]
    network = mean_of([part.network for part in parts])
    material = _material(data, votes, seed=0)
    if refresh:
        refresh_norms(network, changed_batches(material.training.pixels, changes, seed=0), target)
    for file, part in zip(files, parts, strict=True):
        right = predict(part.network.to(target), material.held_back.pixels, target).argmax(1) == material.held_back.labels
        _say(f"{file}: accuracy {right.float().mean():.2%}, {right[material.clean].float().mean():.2%} of those unseen in training")
    origin = {
        "average_of": [part.sha256 for part in parts],
        "norms": "refreshed" if refresh else "averaged",
        **shared_origin([part.figures for part in parts]),
    }
    _finish(path, network, material, origin=origin, device=target)
    _say(f"next: python -m training evaluate {typed(path)} --data {typed(data)} --tta")
    print(path)


@app.command()
def finetune(
    *,
    pictures: Annotated[Path, typer.Argument(help="Folder with a folder of pictures for each label.", metavar="FOLDER")],
    find_faces: Annotated[
        bool, typer.Option("--find-faces", help="The pictures are photographs: find the face in each, as run does.")
    ] = False,
    held_back: Annotated[
        Path | None,
        typer.Option("--held-back", help="Folder like FOLDER to calibrate and evaluate on; default: a fifth of FOLDER's pictures."),
    ] = None,
    start: Annotated[Path | None, typer.Option("--start", help="Begin with these weights; default: the shipped ones.")] = None,
    recipe: Annotated[
        Path, typer.Option("--recipe", help="TOML file of hyperparameters.", show_default="training/recipes/finetune.toml")
    ] = FINETUNING,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of this run; default: runs/<name of FOLDER>.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Instead of the recipe's.")] = None,
    device: Device = "auto",
) -> None:
    """Train on from given weights to labels and faces of your own, and write OUT/weights.safetensors for batchemo run.

    Stopped at any time, the same command goes on after the last whole epoch. Prints the path of the weights.
    """
    from batchemo.devices import choose_device
    from batchemo.weights import SHIPPED, load_weights
    from training.finetuning import describe, fitting_recipe, read_material, relabel
    from training.recipe import read_recipe

    chosen = _chosen(read_recipe(recipe), epochs=epochs, seed=seed)
    folder = out if out is not None else Path("runs") / pictures.resolve().name
    target = choose_device(device)
    begun = load_weights(SHIPPED if start is None else start)
    crops = folder / "crops" if find_faces else None
    training, held, labelled = read_material(pictures, held_back, known=begun.labels, crops=crops, seed=chosen.seed, device=target)
    for line in describe(labelled):
        _say(line)
    material = _checked(training, held, "a fifth of the pictures" if held_back is None else held_back.name, source=held_back or pictures)
    network = relabel(begun, labelled.labels, training, device=target)
    network = _fit(fitting_recipe(chosen, network, len(training)), material, folder=folder, device=target, start=network)
    path = folder / WEIGHTS
    origin = {"recipe": recipe.stem, "epochs": chosen.epochs, "start_sha256": begun.sha256}
    _finish(path, network, material, origin=origin, device=target, labels=labelled.labels)
    _say(f"next: python -m batchemo run INPUT --out results --weights {typed(path)}")
    print(path)


@app.command()
def sweep(
    *,
    trials: Annotated[Path, typer.Argument(help="TOML file: a recipe, and lists or ranges to vary.", metavar="SWEEP.toml")],
    data: Data,
    votes: Votes = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the trials; default: runs/<name of the sweep>.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Instead of the recipe's: trials may be short.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Trials at once; default: one a core, one on a GPU.")] = None,
    device: Device = "auto",
) -> None:
    """Train once for each set of hyperparameters, and print a table of them, the best first; also OUT/results.csv.

    Stopped at any time, the same command goes on where it was.
    """
    from batchemo.devices import choose_device
    from batchemo.engine import usable_cores
    from training.display import print_trials
    from training.sweeping import RECIPE as RECIPE_OF_TRIAL
    from training.sweeping import Material, ranked, read_sweep, run_sweep

    planned = read_sweep(trials, epochs=epochs)
    folder = out if out is not None else Path("runs") / trials.stem
    target = choose_device(device)
    count = workers or (1 if target.type == "cuda" else usable_cores())
    shared = _material(data, votes, planned[0].recipe.seed)
    _say(f"{len(planned)} trials, {min(count, len(planned))} at once, in {folder}; compared on {shared.name}")
    results: list[dict[str, Any]] = []
    try:
        for result in run_sweep(planned, Material(*shared[:3]), folder=folder, device=target, workers=count):
            results.append(result)
            _say(f"{len(results)}/{len(planned)}  {result['trial']}  {result['error'] or format(result['accuracy_clean'], '.2%')}")
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on where it was")
        raise typer.Exit(130) from None
    best = ranked(results)[0]
    print_trials(ranked(results))
    if not best["error"]:
        chosen = folder / best["trial"]
        votes_too = f" --votes {typed(votes)}" if votes is not None else ""
        command = f"python -m training fit {typed(chosen / RECIPE_OF_TRIAL)} --data {typed(data)}{votes_too}"
        _say(f"next: {command} --out {typed(chosen)}  (writes the weights of the best trial)")
        if epochs is not None:
            whole = read_sweep(trials)[0].recipe.epochs
            _say(f"or:   {command} --epochs {whole} --out {typed(folder / 'best')}  (trains it as long as the recipe says)")


@app.command()
def export(
    *,
    weights: Annotated[Path | None, typer.Argument(help="A weights file; default: the shipped one.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="ONNX file to write; default: the weights' name with .onnx, here.")] = None,
    pixels: Annotated[Pixels, typer.Option("--input", help="Type of the crops that the graph takes.")] = "uint8",
) -> None:
    """Write the network as ONNX: crops in, calibrated probabilities out, checked against torch. Prints the path."""
    from batchemo.weights import SHIPPED, load_weights
    from training.exporting import check_installed
    from training.exporting import export as write_onnx

    source = SHIPPED if weights is None else weights
    check_installed()
    path = Path(f"{source.stem}.onnx") if to is None else to
    difference = write_onnx(load_weights(source), path, pixels=pixels)
    _say(f"probabilities differ from torch's by {difference:.1e} at most")
    print(path)


@app.command()
def explore(
    *,
    data: Data,
    weights: Annotated[Path | None, typer.Argument(help="A weights file; default: the shipped one.")] = None,
    votes: Votes = None,
    split: Annotated[str, typer.Option("--split", help="Training, PublicTest or PrivateTest.")] = "PublicTest",
    face: Annotated[
        list[int] | None,
        typer.Option("--face", min=0, help="Number of a picture, from 0, to explain; may be repeated. Default: some of each emotion."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("explore.html"),
    device: Device = "auto",
) -> None:
    """Write a web page of a network's mistakes, its doubts, labels that look wrong, and what it looks at. Prints its path."""
    from batchemo.devices import choose_device
    from training.dataset import check_split, choose_split, read_splits
    from training.exploration import explore as look
    from training.page import write_page

    check_split(split)
    target = choose_device(device)
    loaded = _load(weights)
    faces = choose_split(read_splits(data, votes=votes, faces_only=False), split, data)
    write_page(out, look(loaded, faces, split=split, device=target, chosen=face, report=_say))
    _say("the page holds pictures of the data set: do not publish it")
    print(out)


@app.command()
def card(
    *,
    data: Data,
    weights: Annotated[Path | None, typer.Argument(help="A weights file; default: the shipped one.")] = None,
    votes: Votes = None,
    device: Device = "auto",
) -> None:
    """Measure a weights file on PublicTest and write MODEL_CARD.md and its figures beside it. Prints the card's path."""
    from batchemo.devices import choose_device
    from batchemo.weights import SHIPPED
    from training.card import measure_for_card, write_card

    path = SHIPPED if weights is None else weights
    figures = measure_for_card(_load(path), data, votes=votes, device=choose_device(device), report=_say)
    print(write_card(path, figures))


@app.command()
def ship(
    *,
    data: Data,
    weights: Annotated[Path, typer.Argument(help="The weights file of a run.")],
    votes: Votes = None,
    device: Device = "auto",
) -> None:
    """Make a weights file the one inside the package, with its model card. Prints its new path."""
    from batchemo.devices import choose_device
    from batchemo.weights import SHIPPED
    from training.card import measure_for_card, write_card

    loaded = _load(weights)
    figures = measure_for_card(loaded, data, votes=votes, device=choose_device(device), report=_say)
    _place(weights, SHIPPED, loaded.sha256)
    _say(f"wrote {write_card(SHIPPED, figures)}")
    print(SHIPPED)


@app.command()
def looks(
    *,
    data: Data,
    votes: Votes = None,
    out: Annotated[Path | None, typer.Option("--out", help="The file to write; default: the one inside the package.")] = None,
    faces: Annotated[int, typer.Option("--faces", min=10, help="How many faces of Training to fit to, from its end.")] = 1000,
) -> None:
    """Fit how faces are compared when people are known again. Prints the path of the file."""
    from batchemo.appearance import PROJECTION
    from training.dataset import read_split
    from training.looks import fit_projection, write_projection

    path = PROJECTION if out is None else out
    pictures = read_split(data, "Training", votes=votes).pixels[-faces:, 0].numpy()
    write_projection(fit_projection(pictures), path)
    print(path)


@app.command()
def tracking(
    *,
    data: Data,
    votes: Votes = None,
    split: Annotated[str, typer.Option("--split", help="Whose faces play. Thresholds were chosen with Training's.")] = "PublicTest",
    scenes: Annotated[int, typer.Option("--scenes", min=1, help="Scenes of each kind.")] = 10,
    pipeline: Annotated[bool, typer.Option("--pipeline", help="Write the scenes as videos and analyse these: slow.")] = False,
) -> None:
    """Measure how well identities are kept, in scenes whose identities are known, against simpler trackers."""
    from training.dataset import read_split
    from training.display import print_tracking
    from training.scenes import cast
    from training.staging import KINDS, RETURNS, stage
    from training.tracking import score, through_pipeline, trackers, watch

    people = cast(read_split(data, split, votes=votes).pixels[:200, 0].numpy(), seed=5)
    scores, described = [], []
    for kind in KINDS:
        _say(f"{kind} ...")
        for seed in range(scenes):
            scene = stage(kind, people, seed=seed)
            if pipeline:
                scores += through_pipeline(scene)
                continue
            sights, milliseconds = watch(scene)
            described.append(milliseconds)
            scores += [score(sights, make(), kind=kind, name=name) for name, make in trackers(scene.fps).items()]
    print_tracking(scores, described, kinds=tuple(KINDS), returns=RETURNS)


class _Material(NamedTuple):
    """What a training sees, what is held back from it under which name, and which of that is not trained on all the same (bool N)."""

    training: FaceSet
    held_back: FaceSet
    clean: torch.Tensor
    name: str


def _material(data: Path, votes: Path | None, seed: int) -> _Material:
    from training.dataset import choose_split, hold_out, leave_out_non_faces, read_splits

    splits = read_splits(data, votes=votes, faces_only=False)
    training, name = choose_split(splits, "Training", data), "PublicTest"
    _compare_with_published("Training", training)
    if name in splits:
        held_back = splits[name]
        _compare_with_published(name, held_back)
    else:
        _say(f"{data} has no pictures of the split PublicTest: a tenth of Training is held back instead, and not trained on")
        training, held_back = hold_out(leave_out_non_faces(training), share=_HELD_OUT_SHARE, seed=seed)
        name = "a tenth of Training"
    # A picture that annotators call no face, left out of training, is no less known: figures of others count it.
    material = _checked(training, held_back, name, source=data)
    return material._replace(training=leave_out_non_faces(training))


def _checked(training: FaceSet, held_back: FaceSet, name: str, *, source: Path) -> _Material:
    from training.dataset import clean_part

    clean = clean_part(held_back, training)
    if clean.sum() < 2:
        raise DataError(f"{source}: all {len(held_back)} pictures of {name} are trained on as well; add others to calibrate on")
    return _Material(training, held_back, clean, name)


def _origin(recipe: Recipe, path: Path, start: Weights | None, material: _Material) -> dict[str, Any]:
    """Where weights come from: what their model card says of their training."""
    return {
        "recipe": path.stem,
        "epochs": recipe.epochs,
        "seed": recipe.seed,
        "trained_on": len(material.training),
        "learned_from_votes": recipe.needs_votes,
        **({"start_sha256": start.sha256} if start else {}),
    }


def _chosen(recipe: Recipe, *, epochs: int | None, seed: int | None) -> Recipe:
    """The recipe with what the command line says instead."""
    given: dict[str, Any] = {"epochs": epochs, "seed": seed}
    return dataclasses.replace(recipe, **{name: value for name, value in given.items() if value is not None})


def _fit(recipe: Recipe, material: _Material, *, folder: Path, device: torch.device, start: ExpressionNet | None) -> ExpressionNet:
    """Fits and tells how it goes; Ctrl-C is exit 130."""
    from training.fitting import fit as fit_network

    _say(f"{len(material.training)} pictures to train on, {len(material.held_back)} to calibrate and evaluate on: {material.name}")
    _say(f"{recipe.epochs} epochs on {device}, in {folder}")
    try:
        return fit_network(
            recipe,
            material.training,
            validation=material.held_back,
            folder=folder,
            device=device,
            report=lambda done: _say(_progress(recipe, done)),
            start=start,
        )
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on after the last whole epoch")
        raise typer.Exit(130) from None


def _compare_with_published(split: str, faces: FaceSet) -> None:
    from training.dataset import PUBLISHED_COUNTS

    if len(faces) != PUBLISHED_COUNTS[split]:
        _say(
            f"{split} has {len(faces)} pictures, {PUBLISHED_COUNTS[split]} in FER2013 as published: figures cannot be compared with others'"
        )


def _finish(
    path: Path,
    network: ExpressionNet,
    material: _Material,
    *,
    origin: dict[str, Any],
    device: torch.device,
    labels: tuple[str, ...] = EMOTIONS,
) -> None:
    """Calibrates and evaluates `network` as it will be stored, and writes `path` with its hash."""
    from batchemo.network import multiply_adds
    from batchemo.weights import half_precision, save_weights
    from training.calibration import fit_temperature
    from training.evaluation import evaluate as measure
    from training.fitting import predict

    stored = half_precision(network)
    logits, truth = predict(stored.to(device), material.held_back.pixels, device).numpy(), material.held_back.labels.numpy()
    clean = material.clean.numpy()
    # A network is surer of pictures that it has been trained on than it may be of others.
    temperature = fit_temperature(logits[clean], truth[clean])
    measured = measure(logits, truth, temperature=temperature, clean=clean, names=labels)
    figures = {
        **{key: round(measured[key], 5) for key in ("accuracy", "macro_f1", "ece", "ece_cross_fitted")},
        "accuracy_clean": round(measured["clean"]["accuracy"], 5),
        "n": measured["n"],
        "split": material.name,
        **origin,
        "multiply_adds": multiply_adds(stored.cpu()),
        "parameters": sum(parameter.numel() for parameter in stored.parameters()),
    }
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / path.name
        _place(source, path, save_weights(source, network, labels=labels, temperature=temperature, figures=figures))
    _say(
        f"{material.name}: accuracy {measured['accuracy']:.2%}, {measured['clean']['accuracy']:.2%} of those unseen in training, "
        f"macro-F1 {measured['macro_f1']:.3f}, ECE {measured['ece_cross_fitted']:.3f} (cross-fitted), temperature {temperature:.3f}"
    )


def _load(weights: Path | None) -> Weights:
    """The weights at that path, or the shipped ones."""
    from batchemo.weights import SHIPPED, load_weights

    path = SHIPPED if weights is None else weights
    loaded = load_weights(path)
    if loaded.labels != EMOTIONS:
        raise WeightsError(f"{path} tells apart {', '.join(loaded.labels)}, where FER2013 has {', '.join(EMOTIONS)}; give other weights")
    return loaded


def _place(source: Path, target: Path, sha256: str) -> None:
    """Copies a weights file and writes its hash. Stopped in between, the two disagree and `load_weights` refuses them."""
    from batchemo.atomic import replacing, write_text
    from batchemo.weights import sidecar

    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    write_text(sidecar(target), f"{sha256}  {target.name}\n")


def _progress(recipe: Recipe, done: Epoch) -> str:
    """One line. What is left is reckoned from the last epoch: its time grows with the area of the pictures."""
    areas_left = sum(recipe.size_px(epoch) ** 2 for epoch in range(done.epoch + 1, recipe.epochs))
    left_s = done.seconds * areas_left / done.size_px**2
    accuracy = "" if math.isnan(done.validation_accuracy) else f"  validation {done.validation_accuracy:.2%}"
    left = f"  {datetime.timedelta(seconds=round(left_s))} left" if areas_left else ""
    return f"epoch {done.epoch + 1}/{recipe.epochs}  {done.size_px} px  loss {done.loss:.4f}{accuracy}  {done.seconds:.1f} s{left}"


def _say(message: str) -> None:
    """One line on stderr, with no control characters: names of files may hold any."""
    print("".join(character if character.isprintable() else "?" for character in message), file=sys.stderr, flush=True)
