"""Fused inference on a CPU: each batch norm is folded into its convolution, and weights are packed once in oneDNN's memory layout.

Plain torch packs the weights in every call, which takes longer than the inference of a single face.
"""

from __future__ import annotations

import copy
import functools
import platform
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from batchemo.emotion.model import INPUT_PX, ExpressionNet, NetworkSpec, ResidualBlock, fuse_conv_norm, standardize

_PACKING_BATCH = 16
"""Batch size for which oneDNN chooses the layout; others work as well."""


class FusedNet:
    """N x 1 x 48 x 48 crops -> logits float64 N x classes, as `ExpressionNet`, in `dtype` (float32 or bfloat16).

    Faster than torch's autocast, most of all for single faces (see docs/benchmarks.md).
    """

    def __init__(self, network: ExpressionNet, dtype: torch.dtype) -> None:
        self._dtype = dtype
        # In float64, so that the logits of a face do not depend on the others of its batch.
        self._head = copy.deepcopy(network.head).double()
        stem = list(network.stem)
        self._stem = [_fuse(conv, norm, INPUT_PX, dtype) for conv, norm in zip(stem[::3], stem[1::3], strict=True)]
        self._blocks: list[_Block] = []
        side = INPUT_PX
        for block in network.stages:
            block = cast(ResidualBlock, block)
            pools = isinstance(block.pool, nn.MaxPool2d)
            side = side // 2 if pools else side
            shortcut = _fuse(block.shortcut[0], block.shortcut[1], side, dtype) if isinstance(block.shortcut, nn.Sequential) else None
            first, second = (_fuse(conv, norm, side, dtype) for conv, norm in ((block.conv1, block.norm1), (block.conv2, block.norm2)))
            self._blocks.append(_Block(pools, first, second, shortcut))

    def __call__(self, crops: Tensor) -> Tensor:
        x = standardize(crops).to(self._dtype).contiguous(memory_format=torch.channels_last)
        for conv in self._stem:
            x = conv(x, "relu")
        for block in self._blocks:
            x = functional.max_pool2d(x, 2) if block.pools else x
            x = block.second.add_relu(block.first(x, "relu"), x if block.shortcut is None else block.shortcut(x, "none"))
        return cast(Tensor, self._head(x.float().mean(dim=(2, 3)).double()))


def can_fuse() -> bool:
    """Whether `FusedNet` supports this processor and this torch."""
    return platform.machine() in {"x86_64", "AMD64"} and _has_operators()


@functools.cache
def _has_operators() -> bool:
    """Whether this torch has the operators with the signatures used here: they are internal to its compiler, and may change."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            small = ExpressionNet(NetworkSpec(stem=8, widths=(16,), blocks=(1,))).eval()
            FusedNet(small, torch.float32)(torch.zeros(1, 1, INPUT_PX, INPUT_PX))
    except (AttributeError, RuntimeError, TypeError):
        return False
    return True


class _Conv(NamedTuple):
    """A fused convolution of stride 1 that keeps the size."""

    weight: Tensor
    bias: Tensor
    padding: list[int]

    def __call__(self, x: Tensor, activation: str) -> Tensor:
        convolve = torch.ops.mkldnn._convolution_pointwise
        return cast(Tensor, convolve(x, self.weight, self.bias, self.padding, [1, 1], [1, 1], 1, activation, [], ""))

    def add_relu(self, x: Tensor, other: Tensor) -> Tensor:
        """relu(convolution of x + other)."""
        convolve = torch.ops.mkldnn._convolution_pointwise.binary
        return cast(Tensor, convolve(x, other, self.weight, self.bias, self.padding, [1, 1], [1, 1], 1, "add", None, "relu", [], None))


class _Block(NamedTuple):
    pools: bool
    first: _Conv
    second: _Conv
    shortcut: _Conv | None


def _fuse(conv: nn.Module, norm: nn.Module, side_px: int, dtype: torch.dtype) -> _Conv:
    weight, bias = fuse_conv_norm(conv, norm)
    padding = [weight.shape[2] // 2] * 2
    pack = torch.ops.mkldnn._reorder_convolution_weight
    size = [_PACKING_BATCH, weight.shape[1], side_px, side_px]
    return _Conv(pack(weight.to(dtype), padding, [1, 1], [1, 1], 1, size), bias.to(dtype), padding)
