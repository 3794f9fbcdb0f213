"""The command `card`: writes the model card of a weights file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import Data, Device, Votes
from training.console import say


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
    from training.export.model_card import measure_for_card, write_card
    from training.export.weights_file import load_emotion_weights

    path = SHIPPED if weights is None else weights
    figures = measure_for_card(load_emotion_weights(path), data, votes=votes, device=choose_device(device), report=say)
    print(write_card(path, figures))
