"""The command `export`: converts a weights file to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import Pixels
from training.console import say


def export(
    *,
    weights: Annotated[Path | None, typer.Argument(help="A weights file; default: the shipped one.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="ONNX file to write; default: the weights' name with .onnx, here.")] = None,
    pixels: Annotated[Pixels, typer.Option("--input", help="Type of the aligned crops that the graph takes.")] = "uint8",
) -> None:
    """Write the network as ONNX, checked against torch: aligned crops in, calibrated probabilities out. Prints the path."""
    from batchemo.emotion.weights import SHIPPED, load_weights
    from training.export.onnx import check_export_packages, write_onnx

    source = SHIPPED if weights is None else weights
    check_export_packages()
    path = Path(f"{source.stem}.onnx") if to is None else to
    difference = write_onnx(load_weights(source), path, pixels=pixels)
    say(f"probabilities differ from torch's by {difference:.1e} at most")
    print(path)
