"""The command `finetune`: fine-tunes a network to labels and faces of the user."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from batchemo.errors import typed
from training.commands.options import FINETUNING, Device
from training.console import say


def finetune(
    *,
    pictures: Annotated[Path, typer.Argument(help="Folder with a folder of pictures for each label.", metavar="FOLDER")],
    find_faces: Annotated[
        bool, typer.Option("--find-faces", help="The pictures are photographs: detect and align the face in each, as run does.")
    ] = False,
    held_back: Annotated[
        Path | None,
        typer.Option("--held-back", help="Folder like FOLDER to calibrate and evaluate on; default: a fifth of FOLDER's pictures."),
    ] = None,
    start: Annotated[Path | None, typer.Option("--start", help="Initial weights; default: the shipped ones.")] = None,
    recipe: Annotated[
        Path, typer.Option("--recipe", help="TOML file of hyperparameters.", show_default="training/recipes/finetune.toml")
    ] = FINETUNING,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of this run; default: runs/<name of FOLDER>.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Instead of the recipe's.")] = None,
    device: Device = "auto",
) -> None:
    """Fine-tune to labels and faces of your own, and write OUT/weights.safetensors for batchemo run.

    If it is stopped, the same command resumes after the last whole epoch. Prints the path of the weights.
    """
    from batchemo.devices import choose_device
    from batchemo.emotion.weights import SHIPPED, load_weights
    from training.data.holdout import checked_holdout
    from training.export.weights_file import WEIGHTS
    from training.fit.finetuning import finetuning_recipe, folder_summary, read_finetuning_data, replace_head
    from training.fit.run import finish_run, run_training, with_overrides
    from training.recipe import read_recipe

    chosen = with_overrides(read_recipe(recipe), epochs=epochs, seed=seed)
    folder = out if out is not None else Path("runs") / pictures.resolve().name
    target = choose_device(device)
    begun = load_weights(SHIPPED if start is None else start)
    crops = folder / "crops" if find_faces else None
    training, held, labelled = read_finetuning_data(pictures, held_back, known=begun.labels, crops=crops, seed=chosen.seed, device=target)
    for line in folder_summary(labelled):
        say(line)
    holdout = checked_holdout(
        training, held, "a fifth of the pictures" if held_back is None else held_back.name, source=held_back or pictures
    )
    network = replace_head(begun, labelled.labels, training, device=target)
    network = run_training(finetuning_recipe(chosen, network, len(training)), holdout, folder=folder, device=target, start=network)
    path = folder / WEIGHTS
    origin = {"recipe": recipe.stem, "epochs": chosen.epochs, "start_sha256": begun.sha256}
    finish_run(path, network, holdout, origin=origin, device=target, labels=labelled.labels)
    say(f"next: python -m batchemo run INPUT --out results --weights {typed(path)}")
    print(path)
