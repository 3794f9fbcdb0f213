"""An expression network made ready for one processor: each norm folded into its convolution, weights in the order that oneDNN reads.

Left to itself torch brings the weights into that order in every call, which takes longer than reading a single face.
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

_FACES = 16
"""Batch for which oneDNN is asked to choose the order; others work as well."""


class FusedNet:
    """N x 1 x 48 x 48 crops -> logits float64 N x classes, as `ExpressionNet` has them, in `dtype` (float32 or bfloat16).

    One thread of a Zen 4 reads a face of 173 million multiply-adds in 2.5 ms alone and 1.55 in batches of 16, in bfloat16; torch's
    autocast took 6.8 and 1.9 in the same minute, and moved probabilities no less (.002).
    """

    def __init__(self, network: ExpressionNet, dtype: torch.dtype) -> None:
        self._dtype = dtype
        # In float64 the logits of a face do not depend on who is read with it.
        self._head = copy.deepcopy(cast(nn.Linear, network.head)).double()
        stem = list(network.stem)
        self._stem = [_conv(each, of, INPUT_PX, dtype) for each, of in zip(stem[::3], stem[1::3], strict=True)]
        self._blocks: list[_Block] = []
        side = INPUT_PX
        for block in network.stages:
            block = cast(ResidualBlock, block)
            halves = isinstance(block.pool, nn.MaxPool2d)
            side = side // 2 if halves else side
            shortcut = _conv(block.shortcut[0], block.shortcut[1], side, dtype) if isinstance(block.shortcut, nn.Sequential) else None
            first, second = (_conv(each, of, side, dtype) for each, of in ((block.conv1, block.norm1), (block.conv2, block.norm2)))
            self._blocks.append(_Block(halves, first, second, shortcut))

    def __call__(self, crops: Tensor) -> Tensor:
        x = standardize(crops).to(self._dtype).contiguous(memory_format=torch.channels_last)
        for conv in self._stem:
            x = conv(x, "relu")
        for block in self._blocks:
            x = functional.max_pool2d(x, 2) if block.halves else x
            x = block.second.added_to(x if block.shortcut is None else block.shortcut(x, "none"), block.first(x, "relu"))
        return cast(Tensor, self._head(x.float().mean(dim=(2, 3)).double()))


def can_fuse(network: ExpressionNet) -> bool:
    """Whether this processor and this architecture (residual, without gates) are ones that `FusedNet` knows."""
    return network.spec.is_plain_resnet and platform.machine() in {"x86_64", "AMD64"} and _works()


@functools.cache
def _works() -> bool:
    """Whether this torch has the operators, in the form that is called here: they belong to its own compiler, which may change them."""
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
    """A convolution of stride 1 that keeps the size."""

    weight: Tensor
    bias: Tensor
    padding: list[int]

    def __call__(self, x: Tensor, activation: str) -> Tensor:
        convolve = torch.ops.mkldnn._convolution_pointwise  # what torch's own compiler calls for this
        return cast(Tensor, convolve(x, self.weight, self.bias, self.padding, [1, 1], [1, 1], 1, activation, [], ""))

    def added_to(self, other: Tensor, x: Tensor) -> Tensor:
        """relu(other + convolution of x)."""
        convolve = torch.ops.mkldnn._convolution_pointwise.binary
        return cast(Tensor, convolve(x, other, self.weight, self.bias, self.padding, [1, 1], [1, 1], 1, "add", None, "relu", [], None))


class _Block(NamedTuple):
    halves: bool
    first: _Conv
    second: _Conv
    shortcut: _Conv | None


def _conv(conv: nn.Module, norm: nn.Module, side_px: int, dtype: torch.dtype) -> _Conv:
    weight, bias = fuse_conv_norm(conv, norm)
    padding = [weight.shape[2] // 2] * 2
    reorder = torch.ops.mkldnn._reorder_convolution_weight
    size = [_FACES, weight.shape[1], side_px, side_px]
    return _Conv(reorder(weight.to(dtype), padding, [1, 1], [1, 1], 1, size), bias.to(dtype), padding)
