"""A fused network has the logits of the plain one, whatever its shape."""

from __future__ import annotations

import platform

import numpy as np
import pytest
import torch
from torch import nn

from batchemo.emotion import fused
from batchemo.emotion.fused import FusedNet, can_fuse
from batchemo.emotion.model import ExpressionNet, NetworkSpec

CROPS = torch.from_numpy(np.random.default_rng(3).integers(0, 255, (9, 1, 48, 48), np.uint8))

needs_onednn = pytest.mark.skipif(
    platform.machine() not in {"x86_64", "AMD64"} or not torch.backends.mkldnn.is_available(),
    reason="networks are fused on x86-64 with oneDNN only",
)


def network(spec: NetworkSpec) -> ExpressionNet:
    """A network with random batch norms: those of an untrained one change nothing."""
    torch.manual_seed(5)
    made = ExpressionNet(spec).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                assert tensor is not None
                nn.init.uniform_(tensor, -0.3, 0.3)
    return made


@needs_onednn
@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec(),
        NetworkSpec(stem=16, widths=(48, 96, 192, 384), blocks=(1, 2, 3, 2)),
        NetworkSpec(stem=8, widths=(24, 40), blocks=(2, 1), classes=3),
    ],
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), pytest.param(torch.bfloat16, 0.03, marks=pytest.mark.needs("bfloat16"))]
)
@torch.inference_mode()
def test_fused_logits_are_those_of_the_network(spec: NetworkSpec, dtype: torch.dtype, tolerance: float) -> None:
    plain = network(spec)
    assert can_fuse()
    expected = plain(CROPS)
    found = FusedNet(plain, dtype)(CROPS)
    assert found.dtype == torch.float64
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected.double(), atol=tolerance * float(expected.abs().max()), rtol=0)


def test_networks_are_not_fused_if_torch_lacks_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(*_: object) -> None:
        raise TypeError("takes another argument now")

    monkeypatch.setattr(fused.FusedNet, "__call__", changed)
    assert not fused._has_operators.__wrapped__()
