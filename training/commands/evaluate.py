"""The command `evaluate`: measures a weights file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import Data, Device, Votes
from training.console import say


def evaluate(
    *,
    data: Data,
    weights: Annotated[Path | None, typer.Argument(help="A weights file; default: the shipped one.")] = None,
    votes: Votes = None,
    split: Annotated[str, typer.Option("--split", help="Training, PublicTest or PrivateTest.")] = "PublicTest",
    tta: Annotated[bool, typer.Option("--tta", help="Average each picture with its mirror image.")] = False,
    degraded: Annotated[
        bool, typer.Option("--degraded", help="Also on small, compressed, blurred, dark, shifted, turned pictures.")
    ] = False,
    pictures: Annotated[Path | None, typer.Option("--pictures", help="Folder for confusion.png and risk_coverage.png.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: Device = "auto",
) -> None:
    """Measure a weights file on one split, and on its clean part: pictures without a copy in Training."""
    from batchemo.devices import choose_device
    from training.commands.tables import print_evaluation
    from training.data.fer2013 import check_split, choose_split, read_splits
    from training.data.holdout import compare_with_published
    from training.evaluate.measurement import measure_weights
    from training.export.weights_file import load_emotion_weights

    check_split(split)
    target = choose_device(device)
    loaded = load_emotion_weights(weights)
    splits = read_splits(data, votes=votes, faces_only=False)
    compare_with_published(split, choose_split(splits, split, data))
    if "Training" not in splits:
        say(f"{data} has no pictures of the split Training, so the clean part is unknown")
    figures = measure_weights(loaded, splits, split=split, device=target, tta=tta, degraded=degraded, report=say)
    if pictures is not None:
        from training.evaluate.charts import write_charts

        for path in write_charts(pictures, figures):
            say(f"wrote {path}")
    if as_json:
        print(json.dumps(figures))
    else:
        print_evaluation(figures)
