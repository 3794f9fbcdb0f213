"""Readings of training pictures by networks that have not seen them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from batchemo.errors import DataError, typed
from training.console import say
from training.options import TEACHER, Data, Device, TrainingVotes


def cross(
    *,
    data: Data,
    recipe: Annotated[
        Path, typer.Argument(help="TOML file of hyperparameters of each network.", show_default="training/recipes/teacher.toml")
    ] = TEACHER,
    votes: TrainingVotes = None,
    folds: Annotated[int, typer.Option("--folds", min=2, help="How many networks; each learns from all folds but its own.")] = 3,
    out: Annotated[Path, typer.Option("--out", help="Folder of the networks and of what they read.")] = Path("runs/cross"),
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Instead of the recipe's; deals the folds as well.")] = None,
    device: Device = "auto",
) -> None:
    """Read each training picture by a network that has not seen it, and write OUT/unseen.safetensors for fit --unseen.

    Stopped at any time, the same command goes on after the last whole epoch. Prints the path of the file.
    """
    from batchemo.devices import choose_device
    from training.folds import cross_fit, quality
    from training.material import gather
    from training.recipe import read_recipe
    from training.runs import changed
    from training.unseen import UNSEEN, find_unseen, write_unseen

    chosen = changed(read_recipe(recipe), epochs=epochs, seed=seed)
    if chosen.unseen_share:
        raise DataError(f"{recipe}: unseen_share is {chosen.unseen_share}, but there are no readings yet; set it to 0 for cross")
    if chosen.teacher_share:
        raise DataError(f"{recipe}: teacher_share is {chosen.teacher_share}, and cross has no teachers; set it to 0")
    target = choose_device(device)
    faces = gather(data, votes, chosen.seed).training
    path = out / UNSEEN
    unseen = find_unseen(path, chosen, faces, folds=folds)
    if unseen is None:
        unseen = cross_fit(chosen, faces, folds=folds, folder=out, device=target)
        write_unseen(unseen)
    say(f"all {folds} folds: {quality(unseen.probabilities, faces.labels)}")
    given = f"--unseen {typed(path)} --data {typed(data)}{f' --votes {typed(votes)}' if votes else ''}"
    say(f"next: python -m training fit RECIPE.toml {given}  (with unseen_share = 0.5 in the recipe)")
    print(path)
