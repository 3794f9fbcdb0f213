"""Inference: probabilities of the expressions of aligned crops, in batches."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from batchemo.devices import cpu_has, upload
from batchemo.emotion.fused import FusedNet, can_fuse
from batchemo.emotion.int8 import Int8Net, int8_is_faster
from batchemo.emotion.weights import Weights, WeightsFile

Precision = Literal["int8", "bfloat16", "float16", "float32"]

BATCH_SIZE = 64
"""Default number of crops per batch: on a CPU 8 are as fast, a GPU gains from more."""


_LIMITS_WITHOUT_BFLOAT16 = frozenset({"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"})


class Classifier:
    """Classifies crops in the precision that `choose_precision` selects.

    If a batch does not fit into the device's memory, the batch size is halved, for good.
    """

    def __init__(self, weights: Weights, *, device: torch.device, batch_size: int = BATCH_SIZE) -> None:
        self.labels = weights.labels
        self._temperature = weights.temperature
        self._device = device
        self._batch_size = batch_size
        self.precision = choose_precision(weights, device)
        self._network = _prepare_network(weights, device, self.precision)

    def classify(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """N x 48 x 48 uint8 -> calibrated probabilities float32 N x classes; each row sums to 1."""
        if not len(crops):
            return np.empty((0, len(self.labels)), np.float32)
        parts = []
        start = 0
        while start < len(crops):
            batch = crops[start : start + self._batch_size]
            try:
                parts.append(self._classify_batch(batch))
            except (torch.OutOfMemoryError, MemoryError):
                if self._batch_size == 1:
                    raise
                self._batch_size = max(1, min(len(batch), self._batch_size) // 2)
                logging.getLogger("batchemo").warning("a batch did not fit into memory; continuing with %d crops a batch", self._batch_size)
                continue
            start += len(batch)
        return np.concatenate(parts)

    @torch.inference_mode()
    def _classify_batch(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        pictures = upload([crops], self._device)[0].unsqueeze(1)
        with self._autocast():
            logits = self._network(pictures)
        # Softmax in float64, so that rows sum to 1 within the rounding of float32.
        probabilities = torch.softmax(logits.double() / self._temperature, dim=1)
        return probabilities.float().cpu().numpy()

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if isinstance(self._network, nn.Module) and self.precision != "float32":
            return torch.autocast(self._device.type, dtype=getattr(torch, self.precision))
        return contextlib.nullcontext()


def choose_precision(weights: Weights | WeightsFile, device: torch.device) -> Precision:
    """The fastest precision that the device supports natively and the weights allow.

    - CUDA: float16.
    - CPU: int8 if the weights have calibration ranges, else bfloat16, else float32. See docs/benchmarks.md for speed and accuracy.
    """
    if device.type == "cuda":
        return "float16"
    if device.type == "cpu" and weights.ranges is not None and int8_is_faster():
        return "int8"
    return "bfloat16" if device.type == "cpu" and has_bfloat16() else "float32"


def _prepare_network(weights: Weights, device: torch.device, precision: Precision) -> Callable[[Tensor], Tensor]:
    if precision == "int8" and weights.ranges is not None:
        return Int8Net(weights.network, weights.ranges)
    if device.type == "cpu" and can_fuse():
        return FusedNet(weights.network, getattr(torch, precision))
    return weights.network.to(device).to(memory_format=torch.channels_last).eval()


@functools.cache
def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively; elsewhere it would be slower than float32, or fail."""
    return cpu_has("avx512_bf16", "amx_bf16", unless_limited_to=_LIMITS_WITHOUT_BFLOAT16)
