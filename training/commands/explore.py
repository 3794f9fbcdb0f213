"""The page of mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.console import say
from training.options import Data, Device, Votes


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
    from training.runs import load

    check_split(split)
    target = choose_device(device)
    loaded = load(weights)
    faces = choose_split(read_splits(data, votes=votes, faces_only=False), split, data)
    write_page(out, look(loaded, faces, split=split, device=target, chosen=face, report=say))
    say("the page holds pictures of the data set: do not publish it")
    print(out)
