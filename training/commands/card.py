"""The model card of weights that are in place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.console import say
from training.options import Data, Device, Votes


def card(
    *,
    data: Data,
    weights: Annotated[Path | None, typer.Argument(help="A weights file; default: the shipped one.")] = None,
    votes: Votes = None,
    device: Device = "auto",
) -> None:
    """Measure a weights file on PublicTest and write MODEL_CARD.md and its figures beside it. Prints the card's path."""
    from batchemo.devices import choose_device
    from batchemo.emotion.weights import SHIPPED
    from training.card import measure_for_card, write_card
    from training.runs import load

    path = SHIPPED if weights is None else weights
    figures = measure_for_card(load(path), data, votes=votes, device=choose_device(device), report=say)
    print(write_card(path, figures))
