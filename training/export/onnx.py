"""Exports networks to ONNX: aligned crops in, calibrated probabilities out, for programs without torch."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from batchemo import __version__
from batchemo.atomic import replacing
from batchemo.emotion.model import INPUT_PX, ExpressionNet
from batchemo.emotion.weights import Weights
from batchemo.errors import DataError

_Pixels = Literal["uint8", "float32"]

TOLERANCE = 1e-4
"""Largest allowed difference of a probability between ONNX Runtime and torch."""

INPUT, OUTPUT = "crops", "probabilities"

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_OPSET = 18
"""The oldest that torch's exporter writes, for old runtimes."""

_BATCHES = (1, 2, 33)


def check_export_packages() -> None:
    """Raises DataError if a package that only the export needs is missing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise DataError(f"exporting needs {', '.join(missing)}; install what is missing with: pip install 'batchemo[export]'")


def write_onnx(weights: Weights, path: Path, *, pixels: _Pixels) -> float:
    """Writes `path`, and returns the largest difference of a probability from torch's on random and flat crops.

    The graph takes `crops` N x 1 x 48 x 48 (uint8, or float32 of any scale), standardises them, and gives `probabilities` N x labels with
    the temperature applied. Its metadata are `labels` (JSON), `temperature`, `weights_sha256` and `batchemo_version`.
    Raises DataError, and leaves no file, if the difference is above `TOLERANCE`.
    """
    import onnx  # noqa: PLC0415 (an extra that may not be installed)

    network = _Calibrated(weights.network, weights.temperature).eval()
    example = _crops(2, pixels, seed=0)
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=_OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave nothing")
    model = program.model_proto
    metadata = {
        "labels": json.dumps(weights.labels),
        "temperature": repr(weights.temperature),
        "weights_sha256": weights.sha256,
        "batchemo_version": __version__,
    }
    onnx.helper.set_model_props(model, metadata)
    with replacing(path) as temporary:
        onnx.save_model(model, temporary)
        onnx.checker.check_model(str(temporary))
        difference = _largest_difference(network, temporary, pixels)
        if not difference <= TOLERANCE:
            raise DataError(f"{path} is not written: its probabilities are up to {difference:.2g} off torch's, more than {TOLERANCE:g}")
    return difference


class _Calibrated(nn.Module):
    def __init__(self, network: ExpressionNet, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, crops: Tensor) -> Tensor:
        return torch.softmax(self.network(crops) / self.temperature, dim=1)


def _crops(count: int, pixels: _Pixels, *, seed: int) -> Tensor:
    """Noise, a ramp, and a flat crop, which would reveal a division by zero."""
    noise = torch.randint(0, 256, (count, 1, INPUT_PX, INPUT_PX), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    noise[count // 2] = torch.linspace(0, 255, INPUT_PX).to(torch.uint8)
    noise[-1] = 128
    return noise if pixels == "uint8" else noise.float() / 255


def _largest_difference(network: nn.Module, path: Path, pixels: _Pixels) -> float:
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    largest = 0.0
    for count in _BATCHES:
        crops = _crops(count, pixels, seed=count)
        with torch.inference_mode():
            expected = network(crops).numpy()
        (given,) = session.run([OUTPUT], {INPUT: crops.numpy()})
        largest = max(largest, float(np.abs(given - expected).max()))
    return largest


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter's progress on stdout and its internal warnings."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
