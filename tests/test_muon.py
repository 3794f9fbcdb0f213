"""Muon: what it does to a matrix, which weights it takes, and that a recipe trains with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from batchemo.emotion.model import ExpressionNet, NetworkSpec
from batchemo.errors import DataError
from tests.patterns import train
from training.fitting import CHECKPOINT, Epoch
from training.muon import Muon, hidden_convolutions, orthogonal
from training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("shape", [(32, 72), (72, 32)], ids=str)
def test_a_matrix_keeps_its_directions_and_loses_its_scales(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonal(matrix)
    assert result.shape == shape
    left, before, right = torch.linalg.svd(matrix, full_matrices=False)
    after = left.T @ result @ right.T
    assert before.max() / before.min() > 3
    assert 0.6 < after.diagonal().min() < after.diagonal().max() < 1.3
    assert (after - torch.diag(after.diagonal())).abs().max() < 0.05  # bfloat16
    assert torch.equal(orthogonal(1024 * matrix), result)


def test_a_step_goes_against_the_gradient_whatever_its_size_and_decays() -> None:
    gradient = torch.randn(32, 2, 3, 3, generator=torch.Generator().manual_seed(1))

    def moved(scale: float, *, decay: float = 0.0) -> torch.Tensor:
        weight = nn.Parameter(torch.ones(32, 2, 3, 3).to(memory_format=torch.channels_last))
        weight.grad = scale * gradient
        Muon([{"params": [weight], "weight_decay": decay, "orthogonal": True}], lr=0.1, momentum=0.9).step()
        return weight.detach() - 1

    assert torch.allclose(moved(1 / 1024), moved(1024), atol=1e-6)
    assert (moved(1) * gradient).sum() < 0
    # A matrix of 32 x 18 has 18 singular values, all near 1 now, times the rate and the root of 32 / 18.
    assert moved(1).norm() == pytest.approx(0.1 * 32**0.5, rel=0.2)
    assert torch.allclose(moved(1, decay=0.5) - moved(1), torch.full((32, 2, 3, 3), -0.05), atol=1e-6)


def test_the_rest_moves_as_by_sgd() -> None:
    weights = [nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4)) for _ in range(2)]
    ours = Muon([{"params": [weights[0]], "weight_decay": 0.01}], lr=0.1, momentum=0.9)
    sgd = torch.optim.SGD([weights[1]], lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    for _ in range(3):
        for weight, optimizer in zip(weights, (ours, sgd), strict=True):
            weight.grad = weight.detach() ** 2
            optimizer.step()
    assert torch.equal(*weights)


def test_convolutions_that_mix_channels_are_taken_alone() -> None:
    shape = {"stem": 8, "widths": (16, 32), "blocks": (1, 1)}
    plain = ExpressionNet(NetworkSpec(**shape))
    # The stem's second, and two and a shortcut in each block.
    assert len(hidden_convolutions(plain)) == 1 + 3 + 3
    assert all(weight is not plain.stem[0].weight for weight in hidden_convolutions(plain))
    separable = ExpressionNet(NetworkSpec(**shape, architecture="mini-xception"))
    taken = {id(weight) for weight in hidden_convolutions(separable)}
    assert id(separable.head.weight) not in taken
    assert all(module.groups == 1 for module in separable.modules() if isinstance(module, nn.Conv2d) and id(module.weight) in taken)


def test_a_recipe_learns_by_muon_repeats_itself_and_goes_on_after_a_stop(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    def stop(_: Epoch) -> None:
        raise KeyboardInterrupt

    moving = dataclasses.replace(recipe, optimizer="muon", epochs=2)
    losses: list[float] = []
    whole = train(moving, data, tmp_path / "whole", lambda done: losses.append(done.loss))
    assert losses[1] < losses[0]
    with pytest.raises(KeyboardInterrupt):
        train(moving, data, tmp_path / "stopped", stop)
    assert torch.load(tmp_path / "stopped" / CHECKPOINT, weights_only=True)["optimizer"]["param_groups"][0]["orthogonal"]
    stopped = train(moving, data, tmp_path / "stopped")
    assert all(torch.equal(*pair) for pair in zip(whole.parameters(), stopped.parameters(), strict=True))
    sgd = train(dataclasses.replace(moving, optimizer="sgd"), data, tmp_path / "sgd")
    assert not torch.equal(whole.head.weight, sgd.head.weight)


def test_rates_of_muon_follow_the_schedule_of_the_others(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    moving = dataclasses.replace(recipe, optimizer="muon", epochs=2, learning_rate=0.04, muon_rate=0.02, muon_decay=0.3)
    train(moving, data, tmp_path)
    groups = torch.load(tmp_path / CHECKPOINT, weights_only=True)["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.3, moving.weight_decay, 0.0]
    assert groups[0]["lr"] == pytest.approx(groups[1]["lr"] / 2)
    assert 0 < groups[1]["lr"] < 0.04


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "adam"}, "optimizer must be sgd or muon, not 'adam'"),
        ({"muon_rate": 0.0}, "muon_rate must be above 0"),
        ({"muon_decay": -0.1}, "muon_decay 0 or more"),
    ],
)
def test_a_recipe_with_wrong_keys_of_muon_says_so(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**change)  # type: ignore[arg-type]


def test_a_checkpoint_of_sgd_is_refused_by_a_recipe_of_muon(recipe: Recipe, data: Path, tmp_path: Path) -> None:
    short = dataclasses.replace(recipe, epochs=1)
    train(short, data, tmp_path)
    with pytest.raises(DataError, match="another recipe"):
        train(dataclasses.replace(short, optimizer="muon"), data, tmp_path)
