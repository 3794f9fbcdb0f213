"""Sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412): a step follows the gradient from where, nearby, the loss is highest.

It looks for weights whose neighbours are as good as they are, and takes a second pass through the network. What it gave here stands in
RESULTS.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


@contextlib.contextmanager
def climbed(weights: Sequence[Tensor], radius: float) -> Iterator[None]:
    """Within the block `weights`, which have gradients, are `radius` (length of all together) further up along these; then as before."""
    moved = [weight for weight in weights if weight.grad is not None]
    with torch.no_grad():
        before = [weight.clone() for weight in moved]
        gradients = [weight.grad for weight in moved]
        length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
        for weight, gradient in zip(moved, gradients, strict=True):
            weight.add_(gradient * (radius / length.clamp_min(1e-12)))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, old in zip(moved, before, strict=True):
                weight.copy_(old)
