"""What several networks together make of the very pictures that another learns from, changed as they are for it.

After Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and consistent" (arXiv 2106.05237): a pupil that sees what its
teachers see comes nearer to them than one that is told what they made of the plain picture.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from batchemo.emotion.model import ExpressionNet


class Teachers:
    """`networks` (at least one) with the same classes, which stay as they are."""

    def __init__(self, networks: Sequence[ExpressionNet], device: torch.device) -> None:
        self._networks = [copy.deepcopy(each).eval().to(device).to(memory_format=torch.channels_last) for each in networks]

    @torch.no_grad()
    def read(self, pictures: Tensor) -> Tensor:
        """N x 1 x S x S -> the mean of their probabilities, N x classes."""
        return torch.stack([network(pictures).float().softmax(dim=1) for network in self._networks]).mean(dim=0)

    def tensors(self) -> list[Tensor]:
        """All that they consist of."""
        return [tensor for network in self._networks for tensor in network.state_dict().values()]
