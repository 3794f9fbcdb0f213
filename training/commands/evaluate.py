"""What a weights file is worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from training.console import say
from training.options import Data, Device, Votes


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
    """Measure a weights file on one split: all of it, and the part that does not stand in Training as well."""
    from batchemo.devices import choose_device
    from training.dataset import check_split, choose_split, read_splits
    from training.display import print_evaluation
    from training.material import compare_with_published
    from training.measurement import measure
    from training.runs import load

    check_split(split)
    target = choose_device(device)
    loaded = load(weights)
    splits = read_splits(data, votes=votes, faces_only=False)
    compare_with_published(split, choose_split(splits, split, data))
    if "Training" not in splits:
        say(f"{data} has no pictures of the split Training, so those that were trained on cannot be told apart")
    figures = measure(loaded, splits, split=split, device=target, tta=tta, degraded=degraded, report=say)
    if pictures is not None:
        from training.charts import write_charts

        for path in write_charts(pictures, figures):
            say(f"wrote {path}")
    if as_json:
        print(json.dumps(figures))
    else:
        print_evaluation(figures)
