"""Net2Net: grows a network without changing its function, so that the larger one continues the training.

After Chen et al. 2016, "Net2Net: Accelerating Learning via Knowledge Transfer" (arXiv 1511.05641). New channels are random, with zero
weights into the old channels; new blocks add nothing at first.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from batchemo.emotion.model import ExpressionNet, NetworkSpec


def grow_network(small: ExpressionNet, spec: NetworkSpec) -> ExpressionNet:
    """A network of `spec` with the logits of `small` (within rounding) and random new weights.

    Raises ValueError if `spec` is smaller in any part, or has other stages or classes. The last norm of a new block starts at 0, and its
    shortcut passes the input on, which is never negative.
    """
    _check(small.spec, spec)
    network = ExpressionNet(spec)
    state = network.state_dict()
    with torch.no_grad():
        for name, old in small.state_dict().items():
            _put(state[_name_in(name, small.spec, spec)], old)
        for index in _new_blocks(small.spec, spec):
            state[f"stages.{index}.norm2.weight"].zero_()
    return network


def _check(small: NetworkSpec, large: NetworkSpec) -> None:
    if (small.classes, len(small.widths)) != (large.classes, len(large.widths)):
        raise ValueError("only stem, widths and blocks may differ from those of the weights to start from")
    pairs = [(small.stem, large.stem), *zip(small.widths, large.widths, strict=True), *zip(small.blocks, large.blocks, strict=True)]
    if any(before > after for before, after in pairs):
        raise ValueError("stem, widths and blocks must be at least those of the weights to start from")
    if _constant_widths(small) != _constant_widths(large):
        raise ValueError("stages that change the number of channels must be those of the weights to start from")


def _constant_widths(spec: NetworkSpec) -> list[bool]:
    """For each stage, whether it keeps the number of channels; its shortcut then has no weights."""
    return [before == after for before, after in itertools.pairwise((spec.stem, *spec.widths))]


def _put(new: Tensor, old: Tensor) -> None:
    """Copies `old` into the first rows and columns of `new`, and zeroes the new columns of the old rows."""
    if new.ndim > 1:
        new[: old.shape[0], old.shape[1] :] = 0
    new[tuple(slice(size) for size in old.shape)] = old


def _name_in(name: str, small: NetworkSpec, large: NetworkSpec) -> str:
    """The name in the large network of a tensor of the small one. Blocks are numbered through all stages."""
    kind, _, rest = name.partition(".")
    if kind != "stages":
        return name
    index, _, leaf = rest.partition(".")
    return f"stages.{_kept_blocks(small, large)[int(index)]}.{leaf}"


def _kept_blocks(small: NetworkSpec, large: NetworkSpec) -> list[int]:
    """The number in the large network of each block of the small one."""
    kept: list[int] = []
    first = 0
    for few, many in zip(small.blocks, large.blocks, strict=True):
        kept += range(first, first + few)
        first += many
    return kept


def _new_blocks(small: NetworkSpec, large: NetworkSpec) -> list[int]:
    return sorted(set(range(sum(large.blocks))) - set(_kept_blocks(small, large)))
