"""Distillation: a network also learns from the probabilities of other networks, its teachers.

The teachers see each picture as it was augmented for the student (Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and
consistent", arXiv 2106.05237).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from batchemo.network import ExpressionNet


class Teachers:
    """Copies of `networks` (at least one, all of the same classes) in evaluation mode on `device`."""

    def __init__(self, networks: Sequence[ExpressionNet], device: torch.device) -> None:
        self._networks = [copy.deepcopy(each).eval().to(device).to(memory_format=torch.channels_last) for each in networks]

    @torch.no_grad()
    def predict(self, pictures: Tensor) -> Tensor:
        """The mean of the teachers' probabilities, N x classes, of pictures N x 1 x S x S."""
        return torch.stack([network(pictures).float().softmax(dim=1) for network in self._networks]).mean(dim=0)

    def tensors(self) -> list[Tensor]:
        """All parameters and buffers."""
        return [tensor for network in self._networks for tensor in network.state_dict().values()]
