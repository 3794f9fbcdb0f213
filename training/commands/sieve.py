"""Where no face can be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.console import say
from training.options import Data, Votes


def sieve(
    *,
    data: Data,
    pictures: Annotated[Path, typer.Option("--pictures", exists=True, help="A folder of pictures and videos to stand behind the faces.")],
    votes: Votes = None,
    out: Annotated[Path | None, typer.Option("--out", help="The file to write; default: the one inside the package.")] = None,
    steps: Annotated[int, typer.Option("--steps", min=20, help="Of 32 pictures each.")] = 3000,
    seed: Annotated[int, typer.Option("--seed", help="Of the first weights and the pictures.")] = 0,
) -> None:
    """Teach the network that says where no face can be, so that searching is quicker. Prints the path of the file."""
    from batchemo.faces.prefilter import PREFILTER
    from training.dataset import read_split
    from training.sieving import RECALL, fit_sieve, read_backdrops, write_sieve

    backdrops = read_backdrops(pictures)
    faces, held_back = (read_split(data, split, votes=votes).pixels[:, 0].numpy() for split in ("Training", "PublicTest"))
    say(f"{len(faces)} faces before {len(backdrops)} pictures, {steps} steps")
    path = PREFILTER if out is None else out
    net, kept = fit_sieve(
        faces, held_back, backdrops, steps=steps, seed=seed, report=lambda step, loss: say(f"step {step}/{steps}  loss {loss:.3f}")
    )
    say(f"{RECALL:.0%} of the blocks with a face let through, {kept:.1%} of all")
    write_sieve(net, path)
    print(path)
