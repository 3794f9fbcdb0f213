"""A `resnet` in integers of eight bits: .59 of the time of bfloat16 (`folded`) on a processor that multiplies them natively (Zen 4), .39 of
that of float32 on one that has AVX2 (Zen 3).

As in Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", but by oneDNN:
norms are folded into the convolutions, weights have a scale a channel, and what passes between convolutions has the range that was
measured once, on pictures of the training. So what is read of a face does not depend on the others of its batch. The first convolution
stays in float32 (with the first in integers, probabilities moved twice as far and nothing was gained), the head is in float64.
"""

from __future__ import annotations

import copy
import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from batchemo.devices import cpu_has
from batchemo.emotion.model import INPUT_PX, ExpressionNet, NetworkSpec, fuse_conv_norm, standardize

CalibrationRanges = dict[str, tuple[float, float]]
"""Least and largest output of each of a network's `quantization_points`."""

_ops: Any = torch.ops.onednn
_ONES = [1, 1]
_LARGEST = 255
_LARGEST_WEIGHT = 127
_SMALLEST_SCALE = 1e-8
"""For what is zero throughout."""

_BATCH = 64
_BATCHES = 16


@functools.cache
def int8_is_faster() -> bool:
    """Whether the processor is quicker with integers of eight bits (AVX2), and torch has the operators. Older torch cannot tell.

    Without AVX512-VNNI sums of two products are cut off at 16 bits: that happens so seldom that probabilities of PublicTest move no
    farther (.005 on average, .06 at most, the weights in the package), and no reading with a confidence of .5 or more changes.
    """
    return cpu_has("avx2", unless_limited_to={"SSE41", "AVX"}) and torch.backends.mkldnn.is_available() and _works()  # type: ignore[no-untyped-call]


def _works() -> bool:
    """Whether this torch has the operators, in the form that is called here: they belong to its own compiler, which may change them."""
    blank = torch.zeros(1, 1, INPUT_PX, INPUT_PX)
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            small = ExpressionNet(NetworkSpec(stem=8, widths=(16,), blocks=(1,))).eval()
            Int8Net(small, dict.fromkeys(quantization_points(small), (-1.0, 1.0)))(blank)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return True


def quantization_points(network: ExpressionNet) -> tuple[str, ...]:
    """The modules whose outputs become integers; none where the network is not a resnet without gates."""
    if not network.spec.is_plain_resnet:
        return ()
    found = [f"stem.{index}" for index, module in enumerate(network.stem) if isinstance(module, nn.ReLU)]
    for index, block in enumerate(network.stages):
        shortcut = [] if isinstance(block.shortcut, nn.Identity) else [f"stages.{index}.shortcut"]
        found += [f"stages.{index}.norm1", *shortcut, f"stages.{index}"]
    return tuple(found)


@torch.inference_mode()
def calibrate_ranges(network: ExpressionNet, crops: Tensor) -> CalibrationRanges | None:
    """Ranges on `crops` (uint8 N x 1 x 48 x 48, of the training; at most 1,024, drawn evenly). None where there are no
    `quantization_points`.

    They are means over batches of 64: with the extremes of all crops, steps are coarser and probabilities moved a fifth further.
    """
    names = quantization_points(network)
    if not names:
        return None
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}

    def keep(name: str, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        least, largest = torch.aminmax(output)
        found[name].append((least.item(), largest.item()))

    chosen = torch.randperm(len(crops), generator=torch.Generator().manual_seed(0))[: _BATCH * _BATCHES]
    handles = [network.get_submodule(name).register_forward_hook(functools.partial(keep, name)) for name in names]
    training = network.training
    network.eval()
    try:
        for batch in chosen.tensor_split(-(-len(chosen) // _BATCH)):
            network(crops[batch].to(network.head.weight.device))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    means = {name: torch.tensor(ends, dtype=torch.float64).mean(dim=0).tolist() for name, ends in found.items()}
    return {name: (least, largest) for name, (least, largest) in means.items()}


class Int8Net:
    """N x 1 x 48 x 48 grey crops (uint8, on the CPU) -> N x classes logits, float64, as `network` gives them, whose `ranges` these are."""

    def __init__(self, network: ExpressionNet, ranges: CalibrationRanges) -> None:
        conv, norm, _, conv2, norm2, _ = network.stem
        inner, form = _Form.above_zero(ranges["stem.2"]), _Form.above_zero(ranges["stem.5"])
        weight, bias = fuse_conv_norm(conv, norm)
        # The half makes cutting off a rounding.
        self._first = weight / inner.scale, bias / inner.scale + 0.5
        side_px = INPUT_PX
        self._second = _Convolution.pack(conv2, norm2, side_px=side_px, inputs=inner, outputs=form)
        self._blocks = []
        for index, block in enumerate(network.stages):
            side_px = side_px if isinstance(block.pool, nn.Identity) else side_px // 2
            self._blocks.append(_Block(block, f"stages.{index}", ranges, side_px=side_px, inputs=form))
            form = self._blocks[-1].outputs
        self._scale = form.scale
        self._head = copy.deepcopy(network.head).double()  # so that logits of a face do not depend on who is read with it

    def __call__(self, crops: Tensor) -> Tensor:
        # `functional.conv2d` would calculate single crops by another method, which rounds otherwise.
        x = torch.mkldnn_convolution(standardize(crops), *self._first, _ONES, _ONES, _ONES, 1).clamp_(0, _LARGEST)
        x = self._second(x.to(torch.uint8).contiguous(memory_format=torch.channels_last))
        for block in self._blocks:
            x = block(x)
        logits: Tensor = self._head((x.float().mean(dim=(2, 3)) * self._scale).double())
        return logits


class _Form(NamedTuple):
    """What integers from 0 to 255 mean: `scale` times what they are above `zero`."""

    scale: float
    zero: int

    @classmethod
    def between(cls, ends: tuple[float, float]) -> _Form:
        least, largest = min(ends[0], 0.0), max(ends[1], 0.0)
        scale = max((largest - least) / _LARGEST, _SMALLEST_SCALE)
        return cls(scale, round(-least / scale))

    @classmethod
    def above_zero(cls, ends: tuple[float, float]) -> _Form:
        return cls.between((0.0, ends[1]))


class _Convolution(NamedTuple):
    """A convolution with its norm, packed for oneDNN: from integers of one form to those of another."""

    weight: Tensor
    scales: Tensor
    zeros: Tensor
    bias: Tensor
    padding: int
    inputs: _Form
    outputs: _Form

    @classmethod
    def pack(cls, conv: nn.Module, norm: nn.Module, *, side_px: int, inputs: _Form, outputs: _Form) -> _Convolution:
        """For pictures of `side_px` x `side_px`; others are read as well, perhaps not as quickly."""
        weight, bias = fuse_conv_norm(conv, norm)
        padding = weight.shape[2] // 2
        scales = weight.abs().amax(dim=(1, 2, 3)).clamp_min(_SMALLEST_SCALE) / _LARGEST_WEIGHT
        whole = (weight / scales[:, None, None, None]).round().to(torch.int8)
        shape = [_BATCH, weight.shape[1], side_px, side_px]
        packed = _ops.qconv_prepack(whole, scales, *inputs, _ONES, [padding, padding], _ONES, 1, shape)
        return cls(packed, scales, torch.zeros(len(scales), dtype=torch.int32), bias, padding, inputs, outputs)

    def __call__(self, x: Tensor, *, relu: bool = True) -> Tensor:
        then: tuple[Any, ...] = ("relu" if relu else "none", [], "")
        found: Tensor = _ops.qconv2d_pointwise(x, *self._weights(), self.bias, *self._places(), *then)
        return found

    def add(self, x: Tensor, other: Tensor, form: _Form) -> Tensor:
        """Adds `other`, which has that form, and cuts off below 0; `other` may be overwritten."""
        then: tuple[Any, ...] = (*form, "sum", 1.0, "relu", [], "")
        found: Tensor = _ops.qconv2d_pointwise.binary(x, *self._weights(), other, self.bias, *self._places(), *then)
        return found

    def _weights(self) -> tuple[Any, ...]:
        return *self.inputs, self.weight, self.scales, self.zeros

    def _places(self) -> tuple[Any, ...]:
        return _ONES, [self.padding, self.padding], _ONES, 1, *self.outputs, torch.uint8


class _Block:
    """A residual block."""

    def __init__(self, block: Any, name: str, ranges: CalibrationRanges, *, side_px: int, inputs: _Form) -> None:
        middle, self.outputs = _Form.above_zero(ranges[f"{name}.norm1"]), _Form.above_zero(ranges[name])
        self._pools = not isinstance(block.pool, nn.Identity)
        self._conv1 = _Convolution.pack(block.conv1, block.norm1, side_px=side_px, inputs=inputs, outputs=middle)
        self._conv2 = _Convolution.pack(block.conv2, block.norm2, side_px=side_px, inputs=middle, outputs=self.outputs)
        self._shortcut: _Convolution | None = None
        self._added = inputs
        if not isinstance(block.shortcut, nn.Identity):
            self._added = _Form.between(ranges[f"{name}.shortcut"])
            self._shortcut = _Convolution.pack(*block.shortcut, side_px=side_px, inputs=inputs, outputs=self._added)

    def __call__(self, x: Tensor) -> Tensor:
        if self._pools:
            x = _halve(x)
        branch = self._conv1(x)
        return self._conv2.add(branch, x if self._shortcut is None else self._shortcut(x, relu=False), self._added)


def _halve(x: Tensor) -> Tensor:
    """Maxima of 2 x 2. `functional.max_pool2d` refuses pictures of integers as large as these."""
    rows = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])
