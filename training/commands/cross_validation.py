"""The command `cross`: cross-validates a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from batchemo.errors import DataError
from training.commands.options import CROSS, Data, Device, TrainingVotes


def cross(
    *,
    data: Data,
    recipe: Annotated[Path, typer.Argument(help="TOML file of hyperparameters.", show_default="training/recipes/cross.toml")] = CROSS,
    votes: TrainingVotes = None,
    folds: Annotated[int, typer.Option("--folds", min=2, help="Number of folds, and of networks.")] = 3,
    out: Annotated[Path, typer.Option("--out", help="Folder of the networks and of predictions.csv.")] = Path("runs/cross"),
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Instead of the recipe's; also of the folds.")] = None,
    device: Device = "auto",
) -> None:
    """Cross-validate a recipe on Training, and write the out-of-fold predictions to OUT/predictions.csv.

    If it is stopped, the same command resumes after the last whole epoch. Prints the path of the file.
    """
    from batchemo.devices import choose_device
    from training.data.holdout import read_holdout
    from training.fit.cross_validation import PREDICTIONS, cross_validate, write_predictions
    from training.fit.run import with_overrides
    from training.recipe import read_recipe

    chosen = with_overrides(read_recipe(recipe), epochs=epochs, seed=seed)
    if chosen.teacher_share:
        raise DataError(f"{recipe}: teacher_share is {chosen.teacher_share}, and cross has no teachers; set it to 0")
    target = choose_device(device)
    faces = read_holdout(data, votes, chosen.seed).training
    probabilities, fold_of = cross_validate(chosen, faces, folds=folds, folder=out, device=target)
    path = out / PREDICTIONS
    write_predictions(path, faces, probabilities, fold_of)
    print(path)
