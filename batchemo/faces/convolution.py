"""Convolutions as the networks of MTCNN and its sieve have them, and the pixels that MTCNN reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_MIDDLE, _STEP = 127.5, 1 / 128


def normalize_pixels(pixels: Tensor) -> Tensor:
    """-1 to 1, as the networks were trained (they are, on 0 to 255, as facenet-pytorch has it: (x - 127.5) / 128)."""
    return (pixels - _MIDDLE) * _STEP


def fold_normalization(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution of `normalize_pixels` pixels, for pixels of 0 to 255."""
    weight, bias = conv.weight.detach() * _STEP, conv.get_parameter("bias").detach()
    return weight, bias - weight.sum(dim=(1, 2, 3)) * _MIDDLE


def convolve(features: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 1) -> Tensor:
    """Of B x C x H x W, without padding. On a CPU always by oneDNN: torch takes a slow path of its own for small pictures."""
    if features.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return functional.conv2d(features, weight, bias, stride)
    return torch.mkldnn_convolution(features, weight, bias, (0, 0), (stride, stride), (1, 1), 1)
