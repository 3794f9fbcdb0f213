"""The command `prefilter`: trains the pre-filter of the face detector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import Data, Votes
from training.console import say


def prefilter(
    *,
    data: Data,
    pictures: Annotated[Path, typer.Option("--pictures", exists=True, help="A folder of pictures and videos: the backgrounds.")],
    votes: Votes = None,
    out: Annotated[Path | None, typer.Option("--out", help="The file to write; default: the one inside the package.")] = None,
    steps: Annotated[int, typer.Option("--steps", min=20, help="Batches of 32 scenes.")] = 3000,
    seed: Annotated[int, typer.Option("--seed", help="Of the initial weights and the scenes.")] = 0,
) -> None:
    """Train the pre-filter, which rejects regions without faces early in the face search. Prints the path of the file."""
    from batchemo.faces.prefilter import PREFILTER
    from training.data.fer2013 import read_split
    from training.prefilter.composites import read_backgrounds
    from training.prefilter.fitting import RECALL, fit_prefilter, write_prefilter

    backgrounds = read_backgrounds(pictures)
    faces, held_back = (read_split(data, split, votes=votes).pixels[:, 0].numpy() for split in ("Training", "PublicTest"))
    say(f"{len(faces)} faces, {len(backgrounds)} backgrounds, {steps} steps")
    path = PREFILTER if out is None else out
    network, passed = fit_prefilter(
        faces, held_back, backgrounds, steps=steps, seed=seed, report=lambda step, loss: say(f"step {step}/{steps}  loss {loss:.3f}")
    )
    say(f"{RECALL:.0%} of the blocks with a face pass, {passed:.1%} of all blocks")
    write_prefilter(network, path)
    print(path)
