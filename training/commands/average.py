"""The mean of several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from batchemo.errors import DataError, typed
from training.console import say
from training.options import VOTING, Data, Device, Votes


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
    from training.material import gather
    from training.recipe import read_recipe
    from training.runs import WEIGHTS, finish, load

    files = [path / WEIGHTS if path.is_dir() else path for path in runs]
    path = out / WEIGHTS
    if path.resolve() in [file.resolve() for file in files]:
        raise DataError(f"{path} is one of those to average; give another folder with --out")
    changes = read_recipe(recipe).augmentation
    target = choose_device(device)
    parts = [load(file) for file in files]
    network = mean_of([part.network for part in parts])
    material = gather(data, votes, seed=0)
    if refresh:
        refresh_norms(network, changed_batches(material.training.pixels, changes, seed=0), target)
    for file, part in zip(files, parts, strict=True):
        right = predict(part.network.to(target), material.held_back.pixels, target).argmax(1) == material.held_back.labels
        say(f"{file}: accuracy {right.float().mean():.2%}, {right[material.clean].float().mean():.2%} of those unseen in training")
    origin = {
        "average_of": [part.sha256 for part in parts],
        "norms": "refreshed" if refresh else "averaged",
        **shared_origin([part.figures for part in parts]),
    }
    finish(path, network, material, origin=origin, device=target)
    say(f"next: python -m training evaluate {typed(path)} --data {typed(data)} --tta")
    print(path)
