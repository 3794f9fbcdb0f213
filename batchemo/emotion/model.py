"""The expression network: 48 x 48 grey crops -> logits.

Residual blocks (He et al. 2016) with stochastic depth (Huang et al. 2016). Plain 3 x 3 convolutions, because depthwise ones are
memory-bound on a CPU.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import fuse_conv_bn_eval

INPUT_PX = 48
"""Side of the crops that the network is trained on, as in FER2013."""

_STANDARD_DEVIATION_FLOOR = 0.02
"""Contrast, as a share of full scale, below which a crop is noise and is not amplified further."""


@dataclasses.dataclass(frozen=True, slots=True)
class NetworkSpec:
    """Hyperparameters of an `ExpressionNet`, stored in its weights file.

    - `classes`: outputs; `stem`: channels at full resolution.
    - `widths`: channels of each stage, each at half the resolution of the last; `blocks`: residual blocks of each.
    - `dropout`, `drop_path` (of the last block, growing linearly from 0): in training only.
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
        """The inverse of `to_json`; missing keys take their defaults. Raises ValueError or TypeError for invalid ones."""
        stored = current_fields(json.loads(text)).items()
        fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in stored}
        return cls(**fields)


_RETIRED = {"architecture": "resnet", "squeeze": 0}
"""Fields of older specs, with the only values that are still supported."""


def current_fields(stored: dict[str, Any]) -> dict[str, Any]:
    """The fields of a stored `NetworkSpec`, without those that have been retired since, unless they ask for another network."""
    return {key: value for key, value in stored.items() if key not in _RETIRED or value != _RETIRED[key]}


class ExpressionNet(nn.Module):
    """N x 1 x H x W grey crops (uint8, or float of any scale) -> logits float32 N x classes.

    Each crop is standardized by its own mean and contrast, so a camera's brightness and gain do not matter.
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
                stages.append(ResidualBlock(channels, width, halve=index == 0, drop_path=drop))
                channels = width
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(spec.dropout)
        self.head = nn.Linear(channels, spec.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, crops: Tensor) -> Tensor:
        return self.read(self.maps(crops))

    def maps(self, crops: Tensor) -> Tensor:
        """The last feature maps: N x the last of `spec.widths` x h x w."""
        return self.stages(self.stem(standardize(crops)))  # type: ignore[no-any-return]

    def features(self, crops: Tensor) -> Tensor:
        """The feature maps after global average pooling: N x the last of `spec.widths`."""
        return self.maps(crops).mean(dim=(2, 3))

    def read(self, maps: Tensor) -> Tensor:
        """The head: feature maps -> logits."""
        logits: Tensor = self.head(self.dropout(maps.mean(dim=(2, 3))))
        return logits.float()


def standardize(crops: Tensor) -> Tensor:
    """N x 1 x H x W crops as float32, each with mean 0 and, unless it is nearly flat, standard deviation 1."""
    scaled = crops.float() / 255 if crops.dtype == torch.uint8 else crops.float()
    spread, mean = torch.std_mean(scaled, dim=(1, 2, 3), keepdim=True, correction=0)
    return (scaled - mean) / spread.clamp_min(_STANDARD_DEVIATION_FLOOR)


def fuse_conv_norm(conv: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of one convolution equal to `conv` followed by `norm` in evaluation mode."""
    fused = fuse_conv_bn_eval(cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm))
    return fused.weight.detach(), cast(Tensor, fused.bias).detach()


def multiply_adds(network: ExpressionNet) -> int:
    """Multiply-adds of all convolutions and linear layers for one crop."""
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
            network(torch.zeros(1, 1, INPUT_PX, INPUT_PX))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return total


def _conv_norm_relu(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut. A block that halves the resolution pools first, for both paths."""

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
        return functional.relu(self.shortcut(x) + _drop_path(branch, self.drop_path, self.training))


def _drop_path(branch: Tensor, share: float, training: bool) -> Tensor:
    """Stochastic depth: drops the branch for a `share` of the crops."""
    if not training or not share:
        return branch
    keep = torch.rand(len(branch), 1, 1, 1, device=branch.device) >= share
    return branch * (keep / (1 - share)).to(branch.dtype)
