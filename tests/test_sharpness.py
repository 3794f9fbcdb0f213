"""Sharpness-aware minimisation: where its gradients are taken, and that weights and norms are left as they were."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.patterns import train
from training.fitting import Epoch
from training.norms import momentum
from training.recipe import Recipe
from training.sharpness import climbed

pytestmark = pytest.mark.usefixtures("one_thread")


def test_weights_climb_by_the_radius_along_the_gradient_and_come_back_to_the_last_bit() -> None:
    weights = [nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0))) for shape in ((3, 4), (5,), (2, 2))]
    for weight in weights[:2]:
        weight.grad = weight.detach() ** 2
    before = [weight.detach().clone() for weight in weights]
    with climbed(weights, 0.5):
        moves = [weight.detach() - old for weight, old in zip(weights, before, strict=True)]
        assert torch.cat([move.flatten() for move in moves]).norm() == pytest.approx(0.5, rel=1e-5)
        assert torch.allclose(moves[0] / moves[0].norm(), before[0] ** 2 / (before[0] ** 2).norm(), atol=1e-5)
        assert not moves[2].any()
    assert all(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))


def test_weights_come_back_from_an_error_and_no_slope_is_no_climb() -> None:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.zeros(3)
    with climbed([weight], 0.5):
        assert torch.equal(weight, torch.ones(3))
    weight.grad = torch.ones(3)
    with pytest.raises(KeyboardInterrupt):
        _climb_and_stop(weight)
    assert torch.equal(weight, torch.ones(3))


def _climb_and_stop(weight: nn.Parameter) -> None:
    with climbed([weight], 0.5):
        raise KeyboardInterrupt


def test_norms_measure_nothing_meanwhile() -> None:
    network = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2, momentum=None))
    with momentum(network, 0.0):
        network(torch.randn(4, 2, 3, 3))
    assert all(not norm.running_mean.any() for norm in network)
    network(torch.randn(4, 2, 3, 3))
    assert all(norm.running_mean.any() for norm in network)
    assert [norm.momentum for norm in network] == [0.1, None]


def test_a_recipe_learns_so_and_repeats_itself(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    aware = dataclasses.replace(recipe, sharpness_radius=0.1, epochs=2)
    epochs: list[Epoch] = []
    first = train(aware, data, tmp_path / "first", report=epochs.append)
    assert epochs[-1].loss < epochs[0].loss
    again = train(aware, data, tmp_path / "again")
    plain = train(dataclasses.replace(aware, sharpness_radius=0.0), data, tmp_path / "plain")
    pairs = zip(first.state_dict().values(), again.state_dict().values(), plain.state_dict().values(), strict=True)
    same = [(torch.equal(one, other), torch.equal(one, third)) for one, other, third in pairs]
    assert all(repeated for repeated, _ in same)
    assert not all(untouched for _, untouched in same)


def test_without_a_climb_the_second_pass_changes_nothing(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    plain = dataclasses.replace(recipe, epochs=1, network=dataclasses.replace(recipe.network, dropout=0.0, drop_path=0.0))
    once = train(plain, data, tmp_path / "once").state_dict()
    twice = train(dataclasses.replace(plain, sharpness_radius=1e-12), data, tmp_path / "twice").state_dict()
    assert all(torch.allclose(once[name], twice[name], atol=1e-5) for name in once if not name.endswith("num_batches_tracked"))


def test_a_radius_below_0_is_refused() -> None:
    with pytest.raises(ValueError, match="sharpness_radius must be 0 or more"):
        Recipe(sharpness_radius=-0.1)
