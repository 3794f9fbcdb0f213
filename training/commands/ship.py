"""Weights into the package."""

from __future__ import annotations

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
    """Make a weights file the one inside the package, with its model card. Prints its new path."""
    from batchemo.devices import choose_device
    from batchemo.weights import SHIPPED
    from training.card import measure_for_card, write_card
    from training.runs import load, place

    loaded = load(weights)
    figures = measure_for_card(loaded, data, votes=votes, device=choose_device(device), report=say)
    place(weights, SHIPPED, loaded.sha256)
    say(f"wrote {write_card(SHIPPED, figures)}")
    print(SHIPPED)
