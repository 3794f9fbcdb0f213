"""The networks of MTCNN equal facenet-pytorch's, which is not imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from batchemo.faces.mtcnn import load_networks


def test_the_networks_are_those_of_facenet_pytorch() -> None:
    from facenet_pytorch.models.mtcnn import ONet, RNet

    torch.manual_seed(0)
    _, refine, output = load_networks()
    for ours, theirs, side in ((refine, RNet(), 24), (output, ONet(), 48)):
        crops = torch.randn(5, 3, side, side)
        with torch.inference_mode():
            for one, other in zip(ours(crops), theirs.eval()(crops), strict=True):
                torch.testing.assert_close(one, other)


@pytest.mark.slow
def test_neither_torchvision_nor_the_compiler_of_torch_is_loaded() -> None:
    """They would take 2.6 seconds and 160 MB of each process."""
    unwanted = ("torchvision", "torch._dynamo", "facenet_pytorch")
    script = f"import sys, batchemo.pipeline.video\nprint(*[name for name in {unwanted} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
