"""A network that has grown reads as before, and only grows."""

import pytest
import torch

from batchemo.emotion.model import ExpressionNet, NetworkSpec
from training.fit.net2net import grow_network

SMALL = NetworkSpec(stem=4, widths=(6, 8), blocks=(1, 1))


def _trained(spec: NetworkSpec) -> ExpressionNet:
    """With statistics of norms that are not those of a new network."""
    torch.manual_seed(0)
    network = ExpressionNet(spec).train()
    for _ in range(3):
        network(torch.rand(16, 1, 24, 24))
    return network.eval()


@pytest.mark.parametrize(
    "spec",
    [
        SMALL,
        NetworkSpec(stem=4, widths=(6, 8), blocks=(2, 3)),
        NetworkSpec(stem=6, widths=(9, 16), blocks=(1, 1)),
        NetworkSpec(stem=5, widths=(6, 12), blocks=(3, 2)),
    ],
)
def test_a_grown_network_reads_as_the_small_one_did(spec: NetworkSpec) -> None:
    small = _trained(SMALL)
    crops = torch.rand(5, 1, 24, 24)
    large = grow_network(small, spec).eval()
    assert large.spec == spec
    torch.testing.assert_close(large(crops), small(crops))


def test_all_of_a_grown_network_learns() -> None:
    large = grow_network(_trained(SMALL), NetworkSpec(stem=6, widths=(9, 12), blocks=(2, 2), dropout=0.0, drop_path=0.0)).train()
    optimizer = torch.optim.SGD(large.parameters(), lr=0.1)
    before = {name: weight.clone() for name, weight in large.named_parameters()}
    crops, labels = torch.rand(32, 1, 24, 24), torch.randint(0, 7, (32,))
    for _ in range(4):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(large(crops), labels).backward()
        optimizer.step()
    assert [name for name, weight in large.named_parameters() if torch.equal(weight, before[name])] == []


@pytest.mark.parametrize(
    ("spec", "cause"),
    [
        (NetworkSpec(stem=4, widths=(6, 7), blocks=(1, 1)), "at least"),
        (NetworkSpec(stem=4, widths=(6, 8, 8), blocks=(1, 1, 1)), "only stem, widths and blocks"),
        (NetworkSpec(stem=6, widths=(6, 8), blocks=(1, 1)), "change the number of channels"),
        (NetworkSpec(classes=8, stem=4, widths=(6, 8), blocks=(1, 1)), "only stem, widths and blocks"),
    ],
)
def test_a_network_neither_shrinks_nor_changes(spec: NetworkSpec, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        grow_network(_trained(SMALL), spec)
