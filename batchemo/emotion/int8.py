"""int8 quantization of a plain resnet by oneDNN, faster than bfloat16 or float32 where the processor has AVX2 (see docs/benchmarks.md).

As in Jacob et al. 2018 ("Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"):
- Batch norms are folded into the convolutions.
- Weights are int8 with one scale per output channel.
- Activations are uint8 with a scale and a zero point from calibration ranges, so a face's result does not depend on its batch.

The first convolution stays in float32 (quantized, it costs accuracy and gains no time), the head is in float64.
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
"""Least and largest activation at each of a network's `quantization_points`."""

_ops: Any = torch.ops.onednn
_ONES = [1, 1]
_UINT8_MAX, _INT8_MAX = 255, 127
_MIN_SCALE = 1e-8
"""Scale of tensors that are zero throughout."""

_BATCH_SIZE, _CALIBRATION_BATCHES = 64, 16


@functools.cache
def int8_is_faster() -> bool:
    """Whether the processor is faster in int8 (AVX2) and torch has the operators. False if torch is too old to say.

    Without AVX512-VNNI sums of two products saturate at 16 bits, too rarely to matter (see docs/benchmarks.md).
    """
    return cpu_has("avx2", unless_limited_to={"SSE41", "AVX"}) and torch.backends.mkldnn.is_available() and _has_operators()  # type: ignore[no-untyped-call]


def _has_operators() -> bool:
    """Whether this torch has the operators with the signatures used here: they are internal to its compiler, and may change."""
    blank = torch.zeros(1, 1, INPUT_PX, INPUT_PX)
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            small = ExpressionNet(NetworkSpec(stem=8, widths=(16,), blocks=(1,))).eval()
            Int8Net(small, dict.fromkeys(quantization_points(small), (-1.0, 1.0)))(blank)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return True


def quantization_points(network: ExpressionNet) -> tuple[str, ...]:
    """Names of the modules whose outputs are quantized."""
    found = [f"stem.{index}" for index, module in enumerate(network.stem) if isinstance(module, nn.ReLU)]
    for index, block in enumerate(network.stages):
        shortcut = [] if isinstance(block.shortcut, nn.Identity) else [f"stages.{index}.shortcut"]
        found += [f"stages.{index}.norm1", *shortcut, f"stages.{index}"]
    return tuple(found)


@torch.inference_mode()
def calibrate_ranges(network: ExpressionNet, crops: Tensor) -> CalibrationRanges:
    """Calibration ranges of activations on training crops (uint8 N x 1 x 48 x 48; a random 1,024 of them).

    Means over batches of 64: the extremes of all crops give a larger scale and less accuracy (see docs/benchmarks.md).
    """
    names = quantization_points(network)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}

    def record(name: str, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        least, largest = torch.aminmax(output)
        found[name].append((least.item(), largest.item()))

    chosen = torch.randperm(len(crops), generator=torch.Generator().manual_seed(0))[: _BATCH_SIZE * _CALIBRATION_BATCHES]
    handles = [network.get_submodule(name).register_forward_hook(functools.partial(record, name)) for name in names]
    training = network.training
    network.eval()
    try:
        for batch in chosen.tensor_split(-(-len(chosen) // _BATCH_SIZE)):
            network(crops[batch].to(network.head.weight.device))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    means = {name: torch.tensor(ends, dtype=torch.float64).mean(dim=0).tolist() for name, ends in found.items()}
    return {name: (least, largest) for name, (least, largest) in means.items()}


class Int8Net:
    """The quantized `network`: N x 1 x 48 x 48 grey crops (uint8, on the CPU) -> logits float64 N x classes."""

    def __init__(self, network: ExpressionNet, ranges: CalibrationRanges) -> None:
        conv, norm, _, conv2, norm2, _ = network.stem
        inner, current = _Quantization.of_relu(ranges["stem.2"]), _Quantization.of_relu(ranges["stem.5"])
        weight, bias = fuse_conv_norm(conv, norm)
        # Adding one half turns the truncation to uint8 into rounding.
        self._first = weight / inner.scale, bias / inner.scale + 0.5
        side_px = INPUT_PX
        self._second = _QuantizedConv.pack(conv2, norm2, side_px=side_px, inputs=inner, outputs=current)
        self._blocks = []
        for index, block in enumerate(network.stages):
            side_px = side_px if isinstance(block.pool, nn.Identity) else side_px // 2
            self._blocks.append(_Block(block, f"stages.{index}", ranges, side_px=side_px, inputs=current))
            current = self._blocks[-1].outputs
        self._scale = current.scale
        self._head = copy.deepcopy(network.head).double()  # so that a face's logits do not depend on its batch

    def __call__(self, crops: Tensor) -> Tensor:
        # Not `functional.conv2d`: for single crops it takes another algorithm, which rounds differently.
        x = torch.mkldnn_convolution(standardize(crops), *self._first, _ONES, _ONES, _ONES, 1).clamp_(0, _UINT8_MAX)
        x = self._second(x.to(torch.uint8).contiguous(memory_format=torch.channels_last))
        for block in self._blocks:
            x = block(x)
        logits: Tensor = self._head((x.float().mean(dim=(2, 3)) * self._scale).double())
        return logits


class _Quantization(NamedTuple):
    """Affine quantization to uint8: real value = `scale` * (integer - `zero_point`)."""

    scale: float
    zero_point: int

    @classmethod
    def of_range(cls, ends: tuple[float, float]) -> _Quantization:
        """For values of a calibration range."""
        least, largest = min(ends[0], 0.0), max(ends[1], 0.0)
        scale = max((largest - least) / _UINT8_MAX, _MIN_SCALE)
        return cls(scale, round(-least / scale))

    @classmethod
    def of_relu(cls, ends: tuple[float, float]) -> _Quantization:
        """For the same values after a ReLU."""
        return cls.of_range((0.0, ends[1]))


class _QuantizedConv(NamedTuple):
    """A fused convolution from one quantization of activations to another, packed for oneDNN."""

    weight: Tensor
    weight_scales: Tensor
    weight_zero_points: Tensor
    bias: Tensor
    padding: int
    inputs: _Quantization
    outputs: _Quantization

    @classmethod
    def pack(cls, conv: nn.Module, norm: nn.Module, *, side_px: int, inputs: _Quantization, outputs: _Quantization) -> _QuantizedConv:
        """Optimized for inputs of `side_px` x `side_px`; others work as well."""
        weight, bias = fuse_conv_norm(conv, norm)
        padding = weight.shape[2] // 2
        scales = weight.abs().amax(dim=(1, 2, 3)).clamp_min(_MIN_SCALE) / _INT8_MAX
        quantized = (weight / scales[:, None, None, None]).round().to(torch.int8)
        shape = [_BATCH_SIZE, weight.shape[1], side_px, side_px]
        packed = _ops.qconv_prepack(quantized, scales, *inputs, _ONES, [padding, padding], _ONES, 1, shape)
        return cls(packed, scales, torch.zeros(len(scales), dtype=torch.int32), bias, padding, inputs, outputs)

    def __call__(self, x: Tensor, *, relu: bool = True) -> Tensor:
        activation: tuple[Any, ...] = ("relu" if relu else "none", [], "")
        output: Tensor = _ops.qconv2d_pointwise(x, *self._input_arguments(), self.bias, *self._output_arguments(), *activation)
        return output

    def add_relu(self, x: Tensor, other: Tensor, quantization: _Quantization) -> Tensor:
        """relu(convolution of x + `other`), the latter of that quantization; `other` may be overwritten."""
        sum_relu: tuple[Any, ...] = (*quantization, "sum", 1.0, "relu", [], "")
        operator = _ops.qconv2d_pointwise.binary
        output: Tensor = operator(x, *self._input_arguments(), other, self.bias, *self._output_arguments(), *sum_relu)
        return output

    def _input_arguments(self) -> tuple[Any, ...]:
        return *self.inputs, self.weight, self.weight_scales, self.weight_zero_points

    def _output_arguments(self) -> tuple[Any, ...]:
        return _ONES, [self.padding, self.padding], _ONES, 1, *self.outputs, torch.uint8


class _Block:
    """A quantized residual block."""

    def __init__(self, block: Any, name: str, ranges: CalibrationRanges, *, side_px: int, inputs: _Quantization) -> None:
        middle, self.outputs = _Quantization.of_relu(ranges[f"{name}.norm1"]), _Quantization.of_relu(ranges[name])
        self._pools = not isinstance(block.pool, nn.Identity)
        self._conv1 = _QuantizedConv.pack(block.conv1, block.norm1, side_px=side_px, inputs=inputs, outputs=middle)
        self._conv2 = _QuantizedConv.pack(block.conv2, block.norm2, side_px=side_px, inputs=middle, outputs=self.outputs)
        self._shortcut: _QuantizedConv | None = None
        self._shortcut_quantization = inputs
        if not isinstance(block.shortcut, nn.Identity):
            self._shortcut_quantization = _Quantization.of_range(ranges[f"{name}.shortcut"])
            self._shortcut = _QuantizedConv.pack(*block.shortcut, side_px=side_px, inputs=inputs, outputs=self._shortcut_quantization)

    def __call__(self, x: Tensor) -> Tensor:
        if self._pools:
            x = _max_pool(x)
        branch = self._conv1(x)
        return self._conv2.add_relu(branch, x if self._shortcut is None else self._shortcut(x, relu=False), self._shortcut_quantization)


def _max_pool(x: Tensor) -> Tensor:
    """Max-pooling of 2 x 2. `functional.max_pool2d` rejects large inputs of uint8."""
    rows = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])
