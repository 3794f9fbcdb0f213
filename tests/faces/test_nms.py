"""Non-maximum suppression keeps the boxes that torchvision's keeps."""

from __future__ import annotations

import pytest
import torch

from batchemo.faces.nms import batched_nms


@pytest.mark.parametrize("overlap", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("count", [0, 1, 250, 1000])
def test_suppression_is_that_of_torchvision(count: int, overlap: float) -> None:
    from torchvision.ops import batched_nms as expected_nms

    generator = torch.Generator().manual_seed(count)
    corners = torch.rand(count, 2, generator=generator) * 60
    sizes = torch.rand(count, 2, generator=generator) * 40
    scores = (torch.rand(count, 1, generator=generator) * 20).round() / 20  # many are equal
    boxes = torch.cat((corners, corners + sizes, scores), dim=1)
    for groups in (torch.zeros(count, dtype=torch.int64), torch.randint(0, 3, (count,), generator=generator)):
        expected = expected_nms(boxes[:, :4], boxes[:, 4], groups, overlap)
        assert batched_nms(boxes, groups, overlap).tolist() == expected.tolist()
