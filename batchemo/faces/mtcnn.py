"""The three networks of MTCNN (Zhang et al. 2016), with the weights that lie in the package facenet-pytorch.

They are built here because importing facenet-pytorch takes torchvision with it, and that the compiler of torch: 2.6 seconds and 160 MB
of each process, for nothing that is used.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from batchemo.errors import BatchemoError


def load_networks() -> tuple[ProposalNet, CropNet, CropNet]:
    """The proposal, refining and output networks. Raises BatchemoError where facenet-pytorch is not installed as it should be."""
    networks = ProposalNet(), refine_net(), output_net()
    for network, name in zip(networks, ("pnet", "rnet", "onet"), strict=True):
        path = _folder() / f"{name}.pt"
        try:
            network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
        except (OSError, RuntimeError) as error:
            raise BatchemoError(f"{path}: the weights of MTCNN cannot be read ({error}); install facenet-pytorch==2.5.3 again") from error
        network.eval()
    return networks


def _folder() -> Path:
    found = importlib.util.find_spec("facenet_pytorch")
    if found is None or found.origin is None:
        raise BatchemoError("facenet-pytorch, which has the weights of MTCNN, is not installed; type: pip install facenet-pytorch==2.5.3")
    return Path(found.origin).parent / "data"


class ProposalNet(nn.Module):
    """Layers of the network that reads whole pictures in cells of 12 px, 2 px apart; the cascade has a path of its own through them.

    After the first activation maxima of 2 x 2 follow; `conv4_1` gives two scores of each cell, `conv4_2` four corrections of its box.
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
    """N x 3 x S x S crops -> corrections N x 4, for the output network also landmarks N x 10, and scores N x 2.

    `convolutions` are (channels, side of the kernel, side of the maxima after it or 0); `hidden` is the width of the dense layer
    `dense<depth>`, on which heads of `heads` outputs stand, named as facenet-pytorch names them.
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
                x = nn.functional.max_pool2d(x, pool, 2, ceil_mode=True)
        # Width before height, as the weights were converted from another framework.
        x = x.permute(0, 3, 2, 1).reshape(len(x), -1)
        x = self._layer(f"prelu{self._depth}", self._layer(f"dense{self._depth}", x))
        scores, *rest = [self._layer(f"dense{self._depth + 1}_{number}", x) for number in range(1, self._heads + 1)]
        return (*rest, scores.softmax(dim=1))

    def _layer(self, name: str, x: Tensor) -> Tensor:
        return self.get_submodule(name)(x)  # type: ignore[no-any-return]


def refine_net() -> CropNet:
    """Crops of 24 px."""
    return CropNet([(28, 3, 3), (48, 3, 3), (64, 2, 0)], cells=9, hidden=128, depth=4, heads=(2, 4))


def output_net() -> CropNet:
    """Crops of 48 px."""
    return CropNet([(32, 3, 3), (64, 3, 3), (64, 3, 2), (128, 2, 0)], cells=9, hidden=256, depth=5, heads=(2, 4, 10))
