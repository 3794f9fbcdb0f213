"""From pictures and a recipe to a weights file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from batchemo.errors import DataError, typed
from training.console import say
from training.options import RECIPE, Data, Device, TrainingVotes


def fit(
    *,
    data: Data,
    recipe: Annotated[Path, typer.Argument(help="TOML file of hyperparameters.", show_default="training/recipes/shipped.toml")] = RECIPE,
    votes: TrainingVotes = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of this run; default: runs/<name of the recipe>.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Instead of the recipe's.")] = None,
    start: Annotated[
        Path | None, typer.Option("--start", help="Begin with these weights, not with random ones; a larger network grows from them.")
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option("--teacher", help="Weights of a network to learn from, as the recipe's teacher_share says; may be given again."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Train a network, calibrate and evaluate it, and write OUT/weights.safetensors.

    Stopped at any time, the same command goes on after the last whole epoch. Prints the path of the weights.
    """
    from batchemo.devices import choose_device
    from training.material import gather
    from training.recipe import read_recipe
    from training.runs import WEIGHTS, changed, finish, load, origin_of, teach

    chosen = changed(read_recipe(recipe), epochs=epochs, seed=seed)
    if teacher and not chosen.teacher_share:
        raise DataError(
            f"{recipe}: its teacher_share is 0: nothing is learnt from {teacher[0]}; set teacher_share = 0.5, or leave out --teacher"
        )
    folder = out if out is not None else Path("runs") / recipe.stem
    target = choose_device(device)
    started_from = load(start) if start is not None else None
    teachers = [load(path) for path in teacher or ()]
    if chosen.teacher_share and not teachers:
        raise DataError(
            f"{recipe}: its teacher_share is {chosen.teacher_share}; name networks to learn from with --teacher, or set it to 0"
        )
    material = gather(data, votes, chosen.seed)
    network = teach(
        chosen,
        material,
        folder=folder,
        device=target,
        start=started_from.network if started_from else None,
        teachers=[each.network for each in teachers],
    )
    path = folder / WEIGHTS
    finish(path, network, material, origin=origin_of(chosen, recipe, started_from, material, teachers=teachers), device=target)
    say(f"next: python -m training evaluate {typed(path)} --data {typed(data)}")
    say(f"or:   python -m training ship {typed(path)} --data {typed(data)}{f' --votes {typed(votes)}' if votes else ''}")
    print(path)
