"""The command `average`: one weights file from several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from batchemo.errors import DataError, typed
from training.commands.options import VOTING, Data, Device, Votes
from training.console import say


def average(
    *,
    runs: Annotated[
        list[Path], typer.Argument(help="Weights files, or folders of runs, that started from the same weights.", metavar="RUN...")
    ],
    data: Data,
    votes: Votes = None,
    out: Annotated[Path, typer.Option("--out", help="Folder to write weights.safetensors to.")] = Path("runs/average"),
    refresh: Annotated[
        bool,
        typer.Option("--refresh-norms/--keep-norms", help="Recompute the statistics of the batch norms on Training, or average them, too."),
    ] = True,
    recipe: Annotated[
        Path,
        typer.Option("--recipe", help="Its augmentation is used to recompute the norms.", show_default="training/recipes/votes.toml"),
    ] = VOTING,
    device: Device = "auto",
) -> None:
    """Average the weights of several runs, calibrate and evaluate the result, and write OUT/weights.safetensors."""
    from batchemo.devices import choose_device
    from training.data.holdout import read_holdout
    from training.export.weights_file import WEIGHTS, load_emotion_weights
    from training.fit.averaging import augmented_batches, average_weights, refresh_norms, shared_origin
    from training.fit.run import finish_run
    from training.inference import predict
    from training.recipe import read_recipe

    files = [path / WEIGHTS if path.is_dir() else path for path in runs]
    path = out / WEIGHTS
    if path.resolve() in [file.resolve() for file in files]:
        raise DataError(f"{path} is one of those to average; give another folder with --out")
    changes = read_recipe(recipe).augmentation
    target = choose_device(device)
    parts = [load_emotion_weights(file) for file in files]
    network = average_weights([part.network for part in parts])
    holdout = read_holdout(data, votes, seed=0)
    if refresh:
        refresh_norms(network, augmented_batches(holdout.training.pixels, changes, seed=0), target)
    for file, part in zip(files, parts, strict=True):
        right = predict(part.network.to(target), holdout.held_back.pixels, target).argmax(1) == holdout.held_back.labels
        say(f"{file}: accuracy {right.float().mean():.2%}, {right[holdout.clean].float().mean():.2%} of those unseen in training")
    origin = {
        "average_of": [part.sha256 for part in parts],
        "norms": "refreshed" if refresh else "averaged",
        **shared_origin([part.figures for part in parts]),
    }
    finish_run(path, network, holdout, origin=origin, device=target)
    say(f"next: python -m training evaluate {typed(path)} --data {typed(data)} --tta")
    print(path)
