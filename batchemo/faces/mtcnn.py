"""The three networks of MTCNN (Zhang et al. 2016), with the weights inside the package facenet-pytorch, and their input normalization.

facenet-pytorch itself is not imported: it loads torchvision and torch's compiler (see docs/benchmarks.md).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from batchemo.errors import BatchemoError

_PIXEL_MEAN, _PIXEL_SCALE = 127.5, 1 / 128
"""The networks are trained on (x - 127.5) / 128."""


def load_networks() -> tuple[ProposalNet, CropNet, CropNet]:
    """The proposal, refinement and output networks (P-Net, R-Net, O-Net), in evaluation mode.

    Raises BatchemoError if facenet-pytorch or its weights are missing or damaged.
    """
    networks = ProposalNet(), refine_net(), output_net()
    for network, name in zip(networks, ("pnet", "rnet", "onet"), strict=True):
        path = _weights_folder() / f"{name}.pt"
        try:
            network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
        except (OSError, RuntimeError) as error:
            raise BatchemoError(f"{path}: cannot read MTCNN's weights ({error}); reinstall facenet-pytorch==2.5.3") from error
        network.eval()
    return networks


def _weights_folder() -> Path:
    found = importlib.util.find_spec("facenet_pytorch")
    if found is None or found.origin is None:
        raise BatchemoError("facenet-pytorch, which contains MTCNN's weights, is not installed; type: pip install facenet-pytorch==2.5.3")
    return Path(found.origin).parent / "data"


class ProposalNet(nn.Module):
    """Layers of P-Net, which scans pictures in cells of 12 px at a stride of 2 px. `Cascade` calls the layers itself.

    A 2 x 2 max-pooling follows the first activation. `conv4_1` gives two class scores per cell, `conv4_2` four box corrections.
    """

    conv1: nn.Conv2d
    prelu1: nn.PReLU
    conv2: nn.Conv2d
    prelu2: nn.PReLU
    conv3: nn.Conv2d
    prelu3: nn.PReLU
    conv4_1: nn.Conv2d
    conv4_2: nn.Conv2d

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)


class CropNet(nn.Module):
    """R-Net or O-Net: N x 3 x S x S crops -> box corrections N x 4, for O-Net also landmarks N x 10, and class probabilities N x 2.

    - `convolutions`: (channels, kernel size, size of the max-pooling after it or 0) of each layer.
    - `cells`: pixels of the last feature map; `hidden`: width of the dense layer `dense<depth>`.
    - `heads`: outputs of each head on that layer. All names are facenet-pytorch's, so that its weights fit.
    """

    def __init__(self, convolutions: Sequence[tuple[int, int, int]], *, cells: int, hidden: int, depth: int, heads: Sequence[int]) -> None:
        super().__init__()
        self._pools = [pool for _, _, pool in convolutions]
        channels = 3
        for number, (width, kernel, _) in enumerate(convolutions, start=1):
            self.add_module(f"conv{number}", nn.Conv2d(channels, width, kernel))
            self.add_module(f"prelu{number}", nn.PReLU(width))
            channels = width
        self._depth = depth
        self.add_module(f"dense{depth}", nn.Linear(channels * cells, hidden))
        self.add_module(f"prelu{depth}", nn.PReLU(hidden))
        self._heads = len(heads)
        for number, outputs in enumerate(heads, start=1):
            self.add_module(f"dense{depth + 1}_{number}", nn.Linear(hidden, outputs))

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        x = crops
        for number, pool in enumerate(self._pools, start=1):
            x = self._layer(f"prelu{number}", self._layer(f"conv{number}", x))
            if pool:
                x = functional.max_pool2d(x, pool, 2, ceil_mode=True)
        # Width before height: the weights were converted from a framework that flattens in this order.
        x = x.permute(0, 3, 2, 1).reshape(len(x), -1)
        x = self._layer(f"prelu{self._depth}", self._layer(f"dense{self._depth}", x))
        scores, *rest = [self._layer(f"dense{self._depth + 1}_{number}", x) for number in range(1, self._heads + 1)]
        return (*rest, scores.softmax(dim=1))

    def _layer(self, name: str, x: Tensor) -> Tensor:
        return self.get_submodule(name)(x)  # type: ignore[no-any-return]


def refine_net() -> CropNet:
    """R-Net: crops of 24 px."""
    return CropNet([(28, 3, 3), (48, 3, 3), (64, 2, 0)], cells=9, hidden=128, depth=4, heads=(2, 4))


def output_net() -> CropNet:
    """O-Net: crops of 48 px."""
    return CropNet([(32, 3, 3), (64, 3, 3), (64, 3, 2), (128, 2, 0)], cells=9, hidden=256, depth=5, heads=(2, 4, 10))


def normalize_pixels(pixels: Tensor) -> Tensor:
    """Pixels of 0 to 255 -> the networks' input range, about -1 to 1."""
    return (pixels - _PIXEL_MEAN) * _PIXEL_SCALE


def fold_normalization(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution of normalized pixels, changed so that it takes pixels of 0 to 255."""
    weight, bias = conv.weight.detach() * _PIXEL_SCALE, conv.get_parameter("bias").detach()
    return weight, bias - weight.sum(dim=(1, 2, 3)) * _PIXEL_MEAN


def convolve(features: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 1) -> Tensor:
    """Convolution of B x C x H x W without padding. On a CPU always by oneDNN: for small inputs torch falls back to a slower kernel."""
    if features.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return functional.conv2d(features, weight, bias, stride)
    return torch.mkldnn_convolution(features, weight, bias, (0, 0), (stride, stride), (1, 1), 1)
