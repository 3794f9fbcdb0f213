"""Runs inference on many pictures, in batches."""

from __future__ import annotations

import torch
from torch import Tensor

from batchemo.emotion.model import ExpressionNet


@torch.inference_mode()
def predict(network: ExpressionNet, pixels: Tensor, device: torch.device, *, batch_size: int = 256, flips: bool = False) -> Tensor:
    """Logits, float32 N x classes, of uint8 or float N x 1 x S x S. `network` must be on `device`.

    With `flips` (test-time augmentation) they are averaged over each picture and its mirror image.
    """
    network.eval()
    parts = []
    for batch in pixels.split(batch_size):  # type: ignore[no-untyped-call]
        crops = batch.to(device).contiguous(memory_format=torch.channels_last)
        logits = network(crops)
        if flips:
            logits = (logits + network(crops.flip(3))) / 2
        parts.append(logits.cpu())
    return torch.cat(parts)
