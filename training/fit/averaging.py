"""Weight averaging of several runs (Wortsman et al. 2022, "Model soups").

Runs that start from the same weights with different seeds mostly end in the same basin of the loss, and its centre generalises better than
its edges. The mean of runs with different initial weights is useless.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from batchemo.emotion.model import ExpressionNet
from batchemo.errors import DataError
from training.data.augmentation import augment
from training.recipe import METHODS, Augmentation

_BATCH = 256
_PICTURES = 40 * _BATCH
_ORIGIN = ("recipe", "epochs", "start_sha256", "trained_on", "learned_from_votes", *METHODS)


def average_weights(networks: Sequence[ExpressionNet]) -> ExpressionNet:
    """A network on the CPU with the mean of the weights and norm statistics of `networks`.

    Raises DataError for fewer than two networks, and if their shapes differ.
    """
    if len(networks) < 2:
        raise DataError("an average needs at least two weights files")
    states = [network.state_dict() for network in networks]
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    for network, shape in zip(networks, shapes, strict=True):
        if shape != shapes[0]:
            raise DataError(f"networks of different shapes have no average: {networks[0].spec} and {network.spec}")
    mean = ExpressionNet(networks[0].spec)
    mean.load_state_dict({name: _mean([state[name] for state in states]) for name in states[0]})
    return mean.eval()


@torch.no_grad()
def refresh_norms(network: ExpressionNet, batches: Iterable[Tensor], device: torch.device) -> None:
    """Recomputes the statistics of the batch norms on `batches` of pictures (N x 1 x S x S).

    The activations of averaged weights are not the average of the activations (Izmailov et al. 2018, section 3.2).
    """
    network.to(device).eval()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    for batch in batches:
        network(batch.to(device).contiguous(memory_format=torch.channels_last))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.cpu().eval()


def augmented_batches(pixels: Tensor, changes: Augmentation, *, seed: int) -> Iterator[Tensor]:
    """Augmented batches for `refresh_norms`, of at most 10,240 random pictures (of uint8 N x 1 x S x S)."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pixels), generator=generator)[:_PICTURES]
    for chosen in order.split(_BATCH):  # type: ignore[no-untyped-call]
        yield augment(pixels[chosen], changes, generator)


def shared_origin(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures about their training in which all networks agree."""
    return {key: figures[0][key] for key in _ORIGIN if key in figures[0] and all(one.get(key) == figures[0][key] for one in figures)}


def _mean(tensors: list[Tensor]) -> Tensor:
    if not tensors[0].is_floating_point():
        return tensors[0]
    return torch.stack(tensors).double().mean(dim=0).to(tensors[0].dtype)
