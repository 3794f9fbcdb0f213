"""The command `reid`: fits the appearance embedding for re-identification."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import Data, Votes


def reid(
    *,
    data: Data,
    votes: Votes = None,
    out: Annotated[Path | None, typer.Option("--out", help="The file to write; default: the one inside the package.")] = None,
    faces: Annotated[int, typer.Option("--faces", min=10, help="Number of faces of Training to fit to, from its end.")] = 1000,
) -> None:
    """Fit the appearance embedding by which people are re-identified. Prints the path of the file."""
    from batchemo.faces.reid import PROJECTION
    from training.data.fer2013 import read_split
    from training.tracking.embedding import fit_projection, write_projection

    path = PROJECTION if out is None else out
    pictures = read_split(data, "Training", votes=votes).pixels[-faces:, 0].numpy()
    write_projection(fit_projection(pictures), path)
    print(path)
