"""How faces are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.options import Data, Votes


def looks(
    *,
    data: Data,
    votes: Votes = None,
    out: Annotated[Path | None, typer.Option("--out", help="The file to write; default: the one inside the package.")] = None,
    faces: Annotated[int, typer.Option("--faces", min=10, help="How many faces of Training to fit to, from its end.")] = 1000,
) -> None:
    """Fit how faces are compared when people are known again. Prints the path of the file."""
    from batchemo.faces.reid import PROJECTION
    from training.dataset import read_split
    from training.looks import fit_projection, write_projection

    path = PROJECTION if out is None else out
    pictures = read_split(data, "Training", votes=votes).pixels[-faces:, 0].numpy()
    write_projection(fit_projection(pictures), path)
    print(path)
