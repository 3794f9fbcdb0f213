"""The command `ship`: puts a weights file and its model card into the package."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import Data, Device, Votes
from training.console import say


def ship(
    *,
    data: Data,
    weights: Annotated[Path, typer.Argument(help="The weights file of a run.")],
    votes: Votes = None,
    device: Device = "auto",
) -> None:
    """Make a weights file the one inside the package, with its model card. Prints its new path.

    If it has no ranges for int8 quantization, they are measured first.
    """
    from batchemo.devices import choose_device
    from batchemo.emotion.weights import SHIPPED
    from training.data.holdout import read_holdout
    from training.evaluate.quantization import with_int8_ranges
    from training.export.model_card import measure_for_card, write_card
    from training.export.weights_file import copy_weights, load_emotion_weights, write_weights

    loaded = load_emotion_weights(weights)
    with tempfile.TemporaryDirectory() as scratch:
        source = weights
        if loaded.ranges is None:
            holdout = read_holdout(data, votes, seed=0)
            ranged = with_int8_ranges(loaded, holdout.training, holdout.held_back)
            if ranged.ranges is not None:
                source = Path(scratch) / weights.name
                write_weights(source, ranged)
                loaded = load_emotion_weights(source)
        figures = measure_for_card(loaded, data, votes=votes, device=choose_device(device), report=say)
        copy_weights(source, SHIPPED, loaded.sha256)
    say(f"wrote {write_card(SHIPPED, figures)}")
    print(SHIPPED)
