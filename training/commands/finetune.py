"""A user's own labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from batchemo.errors import typed
from training.console import say
from training.options import FINETUNING, Device


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
    from batchemo.emotion.weights import SHIPPED, load_weights
    from training.finetuning import describe, fitting_recipe, read_material, relabel
    from training.material import checked
    from training.recipe import read_recipe
    from training.runs import WEIGHTS, changed, finish, teach

    chosen = changed(read_recipe(recipe), epochs=epochs, seed=seed)
    folder = out if out is not None else Path("runs") / pictures.resolve().name
    target = choose_device(device)
    begun = load_weights(SHIPPED if start is None else start)
    crops = folder / "crops" if find_faces else None
    training, held, labelled = read_material(pictures, held_back, known=begun.labels, crops=crops, seed=chosen.seed, device=target)
    for line in describe(labelled):
        say(line)
    material = checked(training, held, "a fifth of the pictures" if held_back is None else held_back.name, source=held_back or pictures)
    network = relabel(begun, labelled.labels, training, device=target)
    network = teach(fitting_recipe(chosen, network, len(training)), material, folder=folder, device=target, start=network)
    path = folder / WEIGHTS
    origin = {"recipe": recipe.stem, "epochs": chosen.epochs, "start_sha256": begun.sha256}
    finish(path, network, material, origin=origin, device=target, labels=labelled.labels)
    say(f"next: python -m batchemo run INPUT --out results --weights {typed(path)}")
    print(path)
