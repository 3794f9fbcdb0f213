"""A larger network that reads as a smaller one does, to go on learning from there.

After Chen et al. 2016, "Net2Net: Accelerating Learning via Knowledge Transfer" (arXiv 1511.05641), with random channels whose weights
into the old ones are 0 in place of copied ones, and further blocks that add nothing at first.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from batchemo.emotion.model import ExpressionNet, NetworkSpec


def grown(small: ExpressionNet, spec: NetworkSpec) -> ExpressionNet:
    """A network of `spec` whose logits are those of `small` (within rounding), its further weights at random.

    Raises ValueError where `spec` is smaller in any part, has other stages or is of another architecture. Only a resnet can have further
    blocks: their last norm begins at 0, and a shortcut carries what comes in, which is never negative.
    """
    _check(small.spec, spec)
    network = ExpressionNet(spec)
    state = network.state_dict()
    with torch.no_grad():
        for name, old in small.state_dict().items():
            _put(state[_name_in(name, small.spec, spec)], old)
        for index in _further_blocks(small.spec, spec):
            state[f"stages.{index}.norm2.weight"].zero_()
    return network


def _check(small: NetworkSpec, large: NetworkSpec) -> None:
    if (small.architecture, small.classes, small.squeeze, len(small.widths)) != (
        large.architecture,
        large.classes,
        large.squeeze,
        len(large.widths),
    ):
        raise ValueError("only stem, widths and blocks may differ from those of the weights to start from")
    pairs = [(small.stem, large.stem), *zip(small.widths, large.widths, strict=True), *zip(small.blocks, large.blocks, strict=True)]
    if any(before > after for before, after in pairs):
        raise ValueError("stem, widths and blocks must be at least those of the weights to start from")
    if _constant_widths(small) != _constant_widths(large):
        raise ValueError("stages that change the number of channels must be those of the weights to start from")
    if small.blocks != large.blocks and large.architecture != "resnet":
        raise ValueError(f"a {large.architecture} cannot have further blocks than the weights to start from")


def _constant_widths(spec: NetworkSpec) -> list[bool]:
    """Of each stage, whether it has as many channels as the one before; its shortcut then has no weights."""
    return [before == after for before, after in itertools.pairwise((spec.stem, *spec.widths))]


def _put(new: Tensor, old: Tensor) -> None:
    """`old` into the first rows and columns of `new`; old rows take nothing from further columns."""
    if new.ndim > 1:
        new[: old.shape[0], old.shape[1] :] = 0
    new[tuple(slice(size) for size in old.shape)] = old


def _name_in(name: str, small: NetworkSpec, large: NetworkSpec) -> str:
    """What a tensor of the small network is called in the large one, whose blocks are counted through all stages."""
    kind, _, rest = name.partition(".")
    if kind != "stages":
        return name
    index, _, leaf = rest.partition(".")
    return f"stages.{_kept_blocks(small, large)[int(index)]}.{leaf}"


def _kept_blocks(small: NetworkSpec, large: NetworkSpec) -> list[int]:
    """For each block of the small network, which it is in the large one."""
    kept: list[int] = []
    first = 0
    for few, many in zip(small.blocks, large.blocks, strict=True):
        kept += range(first, first + few)
        first += many
    return kept


def _further_blocks(small: NetworkSpec, large: NetworkSpec) -> list[int]:
    return sorted(set(range(sum(large.blocks))) - set(_kept_blocks(small, large)))
