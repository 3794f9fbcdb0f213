"""Pre-filter (early rejection) of MTCNN's proposal network: rejects blocks of cells by its first features, before its later layers run.

As in Viola & Jones 2001 and Li et al. 2015 ("A Convolutional Neural Network Cascade for Face Detection"). The small network is distilled
from the proposal network (`python -m training prefilter`), and proposes nothing itself.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from batchemo.errors import BatchemoError
from batchemo.faces.mtcnn import convolve

PREFILTER = Path(__file__).parent / "weights" / "prefilter.safetensors"

BLOCK_CELLS = 2
"""Cells of the proposal network pass or are rejected in blocks of 2 x 2."""
CELL_FEATURES = 5
"""Receptive field of one cell, in features; the stride of cells is 1."""
BLOCK_FEATURES = CELL_FEATURES + BLOCK_CELLS - 1
"""Receptive field of a block."""

_CHANNELS = 10
_SLOPE = 0.1


class PrefilterNet(nn.Module):
    """Features of the proposal network after its first max-pooling, B x 10 x rows x columns -> a score per block, B x rows x columns.

    Above 0 the block may hold a face.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(_CHANNELS, 16, BLOCK_FEATURES, stride=BLOCK_CELLS)
        self.conv2 = nn.Conv2d(16, 16, 1)
        self.conv3 = nn.Conv2d(16, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        x = functional.leaky_relu(self.conv1(features), _SLOPE)
        x = functional.leaky_relu(self.conv2(x), _SLOPE)
        scores: Tensor = self.conv3(x)
        return scores.squeeze(1)


def load_prefilter(path: Path = PREFILTER) -> PrefilterNet:
    """The network in evaluation mode. Raises BatchemoError if the file is missing or damaged."""
    network = PrefilterNet()
    try:
        network.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise BatchemoError(f"{path}: cannot read the weights of the pre-filter ({error}); reinstall batchemo") from error
    return network.eval()


class Prefilter:
    """`PrefilterNet`, optimized for a CPU: its 1 x 1 convolutions run as matrix products."""

    def __init__(self, network: PrefilterNet) -> None:
        self._first = network.conv1.weight.detach().contiguous(memory_format=torch.channels_last), network.conv1.bias
        self._second = network.conv2.weight.detach().flatten(1), network.conv2.bias
        self._last = network.conv3.weight.detach().flatten(1), network.conv3.bias

    def select_blocks(self, features: Tensor) -> tuple[Tensor, float]:
        """The blocks that pass, N x 3 (picture, row, column), and their share of all; `features` B x 10 x rows x columns, channels last."""
        x = functional.leaky_relu_(convolve(features, *self._first, stride=BLOCK_CELLS), _SLOPE).permute(0, 2, 3, 1)
        x = functional.leaky_relu_(functional.linear(x, *self._second), _SLOPE)
        scores = functional.linear(x, *self._last).squeeze(3)
        blocks = (scores > 0).nonzero()
        return blocks, len(blocks) / scores.numel()


def pad_to_blocks(features: Tensor) -> Tensor:
    """Features (B x C x rows x columns) with replicated lower and right edges where a block would be incomplete; channels last."""
    lacking = [(side - CELL_FEATURES + 1) % BLOCK_CELLS for side in features.shape[:1:-1]]
    padded = functional.pad(features, (0, lacking[0], 0, lacking[1]), mode="replicate") if any(lacking) else features
    return padded.contiguous(memory_format=torch.channels_last)


def extract_patches(features: Tensor, blocks: Tensor) -> Tensor:
    """The receptive fields of N blocks (N x 3: picture, row, column): N x C x 6 x 6, channels last.

    `features` B x C x rows x columns, channels last.
    """
    pictures = features.permute(0, 2, 3, 1)
    batch, height, width, channels = pictures.shape
    rows, columns = ((side - BLOCK_FEATURES) // BLOCK_CELLS + 1 for side in (height, width))
    row = width * channels
    steps = height * row, BLOCK_CELLS * row, BLOCK_CELLS * channels, row, channels, 1
    windows = pictures.as_strided((batch, rows, columns, BLOCK_FEATURES, BLOCK_FEATURES, channels), steps)
    return windows[blocks[:, 0], blocks[:, 1], blocks[:, 2]].permute(0, 3, 1, 2)
