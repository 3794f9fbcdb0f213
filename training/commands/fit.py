"""The command `fit`: trains a network by a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from batchemo.errors import DataError, typed
from training.commands.options import RECIPE, Data, Device, TrainingVotes
from training.console import say


def fit(
    *,
    data: Data,
    recipe: Annotated[Path, typer.Argument(help="TOML file of hyperparameters.", show_default="training/recipes/shipped.toml")] = RECIPE,
    votes: TrainingVotes = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of this run; default: runs/<name of the recipe>.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Instead of the recipe's.")] = None,
    start: Annotated[
        Path | None, typer.Option("--start", help="Initial weights, in place of random ones. A larger network grows from them.")
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option("--teacher", help="Weights of a teacher, for a recipe with a teacher_share; repeatable."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Train a network, calibrate and evaluate it, and write OUT/weights.safetensors.

    If it is stopped, the same command resumes after the last whole epoch. Prints the path of the weights.
    """
    from batchemo.devices import choose_device
    from training.data.holdout import read_holdout
    from training.export.weights_file import WEIGHTS, load_emotion_weights
    from training.fit.run import finish_run, provenance, run_training, with_overrides
    from training.recipe import read_recipe

    chosen = with_overrides(read_recipe(recipe), epochs=epochs, seed=seed)
    if teacher and not chosen.teacher_share:
        raise DataError(
            f"{recipe}: its teacher_share is 0: nothing is learnt from {teacher[0]}; set teacher_share = 0.5, or leave out --teacher"
        )
    folder = out if out is not None else Path("runs") / recipe.stem
    target = choose_device(device)
    started_from = load_emotion_weights(start) if start is not None else None
    teachers = [load_emotion_weights(path) for path in teacher or ()]
    if chosen.teacher_share and not teachers:
        raise DataError(
            f"{recipe}: its teacher_share is {chosen.teacher_share}; name networks to learn from with --teacher, or set it to 0"
        )
    holdout = read_holdout(data, votes, chosen.seed)
    network = run_training(
        chosen,
        holdout,
        folder=folder,
        device=target,
        start=started_from.network if started_from else None,
        teachers=[each.network for each in teachers],
    )
    path = folder / WEIGHTS
    finish_run(path, network, holdout, origin=provenance(chosen, recipe, started_from, holdout, teachers=teachers), device=target)
    say(f"next: python -m training evaluate {typed(path)} --data {typed(data)}")
    say(f"or:   python -m training ship {typed(path)} --data {typed(data)}{f' --votes {typed(votes)}' if votes else ''}")
    print(path)
