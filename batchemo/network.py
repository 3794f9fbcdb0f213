"""The network that reads an apparent expression from a face crop: a small ResNet for 48 x 48 grey pictures.

Residual blocks: He et al. 2016, "Deep Residual Learning"; stochastic depth: Huang et al. 2016. Only plain 3 x 3
convolutions with channel counts in multiples of 16, because depthwise ones are bound by memory on a CPU. Norms start at
1: starting the last of each block at 0 left the loss after 150 steps at 1.79 instead of 1.61.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

INPUT_PX = 48
"""Side of the crops that the network is trained on: FER2013's."""

_STANDARD_DEVIATION_FLOOR = 0.02
"""Contrast, as a share of full scale, below which a crop is noise and is not stretched any further."""


@dataclasses.dataclass(frozen=True, slots=True)
class NetworkSpec:
    """Shape of an `ExpressionNet`: what a weights file must say so that its tensors fit.

    `stem` channels at full resolution, then one stage for each of `widths`, each halving the resolution, with as many
    residual blocks as `blocks` says. `dropout` and `drop_path` (of the last block, growing linearly from 0) act in
    training only.
    """

    classes: int = 7
    stem: int = 16
    widths: tuple[int, ...] = (48, 96, 192, 256)
    blocks: tuple[int, ...] = (1, 2, 2, 1)
    dropout: float = 0.2
    drop_path: float = 0.05

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.blocks):
            raise ValueError(f"{len(self.widths)} widths for {len(self.blocks)} stages of blocks")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> NetworkSpec:
        """Raises ValueError or TypeError where `text` does not describe a network."""
        fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in json.loads(text).items()}
        return cls(**fields)


class ExpressionNet(nn.Module):
    """N x 1 x H x W grey crops (uint8, or float of any scale) -> N x classes logits, float32.

    Each crop is standardised by its own mean and contrast first, so brightness and gain of a camera do not matter.
    Pooling is global: sizes other than 48 px work, with less accuracy.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.stem = nn.Sequential(*_conv_norm_relu(1, spec.stem), *_conv_norm_relu(spec.stem, spec.stem))
        total = sum(spec.blocks)
        stages: list[nn.Module] = []
        channels = spec.stem
        for width, count in zip(spec.widths, spec.blocks, strict=True):
            for index in range(count):
                drop = spec.drop_path * len(stages) / max(1, total - 1)
                stages.append(_Block(channels, width, halve=index == 0, drop_path=drop))
                channels = width
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(spec.dropout)
        self.head = nn.Linear(channels, spec.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, crops: Tensor) -> Tensor:
        return self.read(self.features(crops))

    def features(self, crops: Tensor) -> Tensor:
        """What the last linear layer reads: N x the last of `spec.widths`."""
        return self.stages(self.stem(standardise(crops))).mean(dim=(2, 3))  # type: ignore[no-any-return]

    def read(self, features: Tensor) -> Tensor:
        """`features` -> logits."""
        return self.head(self.dropout(features)).float()  # type: ignore[no-any-return]


def standardise(crops: Tensor) -> Tensor:
    """N x 1 x H x W crops -> the same in float32, each with mean 0 and, unless it is nearly flat, standard deviation 1."""
    scaled = crops.float() / 255 if crops.dtype == torch.uint8 else crops.float()
    spread, mean = torch.std_mean(scaled, dim=(1, 2, 3), keepdim=True, correction=0)
    return (scaled - mean) / spread.clamp_min(_STANDARD_DEVIATION_FLOOR)


def multiply_adds(network: ExpressionNet, side_px: int = INPUT_PX) -> int:
    """Multiply-adds of convolutions and linear layers for one crop of `side_px` x `side_px`."""
    total = 0

    def count(module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += module.weight.numel() * output.shape[2] * output.shape[3]
        elif isinstance(module, nn.Linear):
            total += module.weight.numel()

    handles = [module.register_forward_hook(count) for module in network.modules()]
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 1, side_px, side_px))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return total


def _conv_norm_relu(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


class _Block(nn.Module):
    """Two 3 x 3 convolutions added to a shortcut; a block that halves the resolution pools first, so both paths see the maxima."""

    def __init__(self, inputs: int, outputs: int, *, halve: bool, drop_path: float) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2) if halve else nn.Identity()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.drop_path = drop_path
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        branch = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        branch = self.norm2(self.conv2(branch))
        if self.training and self.drop_path > 0:
            keep = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop_path
            branch = branch * (keep / (1 - self.drop_path)).to(branch.dtype)
        return functional.relu(self.shortcut(x) + branch)
