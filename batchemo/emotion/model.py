"""The expression networks: 48 x 48 grey crops -> logits.

- `resnet`, which batchemo ships: residual blocks (He et al. 2016) with stochastic depth (Huang et al. 2016) and, optionally,
  squeeze-and-excitation (Hu et al. 2018). Plain 3 x 3 convolutions, because depthwise ones are memory-bound on a CPU.
- `vgg`: the same without shortcuts, as in Pramerdorfer & Kampel 2016, with global pooling instead of wide dense layers.
- `mini-xception`: depthwise separable blocks (Arriaga et al. 2017), the classical small baseline; here its first two convolutions
  are padded, too.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import fuse_conv_bn_eval

INPUT_PX = 48
"""Side of the crops that the network is trained on, as in FER2013."""

ARCHITECTURES = ("resnet", "vgg", "mini-xception")

_STANDARD_DEVIATION_FLOOR = 0.02
"""Contrast, as a share of full scale, below which a crop is noise and is not amplified further."""


@dataclasses.dataclass(frozen=True, slots=True)
class NetworkSpec:
    """Hyperparameters of an `ExpressionNet`, stored in its weights file.

    - `architecture`: one of `ARCHITECTURES`; `classes`: outputs.
    - `stem`: channels at full resolution.
    - `widths`: channels of each stage, each at half the resolution of the last; `blocks`: residual blocks (of a vgg: convolutions) of each.
    - `squeeze`: channel reduction of squeeze-and-excitation; 0: without.
    - `dropout`, `drop_path` (of the last block, growing linearly from 0): in training only.
    """

    architecture: str = "resnet"
    classes: int = 7
    stem: int = 16
    widths: tuple[int, ...] = (48, 96, 192, 256)
    blocks: tuple[int, ...] = (1, 2, 2, 1)
    squeeze: int = 0
    dropout: float = 0.2
    drop_path: float = 0.05

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            close = difflib.get_close_matches(str(self.architecture), ARCHITECTURES, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(ARCHITECTURES)}"
            raise ValueError(f"unknown architecture {self.architecture!r}; {hint}")
        if len(self.widths) != len(self.blocks):
            raise ValueError(f"{len(self.widths)} widths for {len(self.blocks)} stages of blocks")
        if self.squeeze and self.architecture != "resnet":
            raise ValueError(f"squeeze belongs to a resnet; set it to 0 for a {self.architecture}")
        if self.drop_path and self.architecture == "vgg":
            raise ValueError("drop_path needs shortcuts, which a vgg lacks; set it to 0")

    @property
    def is_plain_resnet(self) -> bool:
        """Residual blocks without squeeze-and-excitation: what `FusedNet` and `Int8Net` support."""
        return self.architecture == "resnet" and not self.squeeze

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> NetworkSpec:
        """The inverse of `to_json`; missing keys take their defaults. Raises ValueError or TypeError for invalid ones."""
        fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in json.loads(text).items()}
        return cls(**fields)


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
                stages.append(_block(spec, channels, width, halve=index == 0, drop_path=drop))
                channels = width
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(spec.dropout)
        self.head: nn.Linear | nn.Conv2d
        if spec.architecture == "mini-xception":
            self.head = nn.Conv2d(channels, spec.classes, 3, padding=1)
        else:
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
        """The head: feature maps -> logits. A linear head follows the global pooling, a convolutional one precedes it."""
        if isinstance(self.head, nn.Conv2d):
            logits: Tensor = self.head(self.dropout(maps)).mean(dim=(2, 3))
        else:
            logits = self.head(self.dropout(maps.mean(dim=(2, 3))))
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


def multiply_adds(network: ExpressionNet, side_px: int = INPUT_PX) -> int:
    """Multiply-adds of all convolutions and linear layers for one crop of `side_px` x `side_px`."""
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


def _block(spec: NetworkSpec, inputs: int, outputs: int, *, halve: bool, drop_path: float) -> nn.Module:
    if spec.architecture == "vgg":
        return nn.Sequential(nn.MaxPool2d(2) if halve else nn.Identity(), *_conv_norm_relu(inputs, outputs))
    if spec.architecture == "mini-xception":
        return _SeparableBlock(inputs, outputs, halve=halve, drop_path=drop_path)
    return ResidualBlock(inputs, outputs, halve=halve, drop_path=drop_path, squeeze=spec.squeeze)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut. A block that halves the resolution pools first, for both paths."""

    def __init__(self, inputs: int, outputs: int, *, halve: bool, drop_path: float, squeeze: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2) if halve else nn.Identity()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.gate = _SqueezeExcitation(outputs, outputs // squeeze) if squeeze else nn.Identity()
        self.drop_path = drop_path
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        branch = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        branch = self.gate(self.norm2(self.conv2(branch)))
        return functional.relu(self.shortcut(x) + _drop_path(branch, self.drop_path, self.training))


class _SeparableBlock(nn.Module):
    """Two depthwise separable convolutions with 3 x 3 max-pooling, and a strided convolution as the shortcut."""

    def __init__(self, inputs: int, outputs: int, *, halve: bool, drop_path: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_separable(inputs, outputs),
            nn.ReLU(inplace=True),
            *_separable(outputs, outputs),
            nn.MaxPool2d(3, stride=2, padding=1) if halve else nn.Identity(),
        )
        self.drop_path = drop_path
        self.shortcut: nn.Module = nn.Identity()
        if halve or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride=2 if halve else 1, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + _drop_path(self.branch(x), self.drop_path, self.training)  # type: ignore[no-any-return]


class _SqueezeExcitation(nn.Module):
    """Scales each channel by a factor of 0 to 1, computed from the means of all channels."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.factors = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factors(x.mean(dim=(2, 3)))[:, :, None, None]  # type: ignore[no-any-return]


def _separable(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
    return depthwise, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)


def _drop_path(branch: Tensor, share: float, training: bool) -> Tensor:
    """Stochastic depth: drops the branch for a `share` of the crops."""
    if not training or not share:
        return branch
    keep = torch.rand(len(branch), 1, 1, 1, device=branch.device) >= share
    return branch * (keep / (1 - share)).to(branch.dtype)
