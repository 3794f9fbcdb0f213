"""How fast batch norms follow the statistics of what they see."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def momentum(network: nn.Module, value: float | None) -> Iterator[list[nn.BatchNorm2d]]:
    """Within the block the norms of `network`, which it gives, have this momentum: at 0 their running means and variances stay as they are,
    with None they become the plain mean over all batches since they were reset."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = value
    try:
        yield norms
    finally:
        for norm, before in zip(norms, usual, strict=True):
            norm.momentum = before
