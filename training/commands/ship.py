"""Weights into the package."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from training.console import say
from training.options import Data, Device, Votes


def ship(
    *,
    data: Data,
    weights: Annotated[Path, typer.Argument(help="The weights file of a run.")],
    votes: Votes = None,
    device: Device = "auto",
) -> None:
    """Make a weights file the one inside the package, with its model card. Prints its new path.

    Where it has no ranges for integers of eight bits, they are measured first, and the file in the package has them.
    """
    from batchemo.devices import choose_device
    from batchemo.emotion.int8 import quantization_points
    from batchemo.emotion.weights import SHIPPED
    from training.card import measure_for_card, write_card
    from training.material import gather
    from training.precision import with_ranges
    from training.runs import load, place, write

    loaded = load(weights)
    with tempfile.TemporaryDirectory() as scratch:
        source = weights
        if loaded.ranges is None and quantization_points(loaded.network):
            material = gather(data, votes, seed=0)
            ranged = with_ranges(loaded, material.training, material.held_back)
            if ranged.ranges is not None:
                source = Path(scratch) / weights.name
                write(source, ranged)
                loaded = load(source)
        figures = measure_for_card(loaded, data, votes=votes, device=choose_device(device), report=say)
        place(source, SHIPPED, loaded.sha256)
    say(f"wrote {write_card(SHIPPED, figures)}")
    print(SHIPPED)
