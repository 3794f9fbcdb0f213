"""The command `explore`: writes a web page of predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import Data, Device, Votes
from training.console import say


def explore(
    *,
    data: Data,
    weights: Annotated[Path | None, typer.Argument(help="A weights file; default: the shipped one.")] = None,
    votes: Votes = None,
    split: Annotated[str, typer.Option("--split", help="Training, PublicTest or PrivateTest.")] = "PublicTest",
    face: Annotated[
        list[int] | None,
        typer.Option("--face", min=0, help="Number of a picture (from 0) for the saliency; repeatable. Default: some of each emotion."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("explore.html"),
    device: Device = "auto",
) -> None:
    """Write a web page of mistakes, uncertain predictions, likely label errors and saliency. Prints its path."""
    from batchemo.devices import choose_device
    from training.data.fer2013 import check_split, choose_split, read_splits
    from training.evaluate.exploration import explore_predictions, write_page
    from training.export.weights_file import load_emotion_weights

    check_split(split)
    target = choose_device(device)
    loaded = load_emotion_weights(weights)
    faces = choose_split(read_splits(data, votes=votes, faces_only=False), split, data)
    write_page(out, explore_predictions(loaded, faces, split=split, device=target, chosen=face, report=say))
    say("the page holds pictures of the data set: do not publish it")
    print(out)
