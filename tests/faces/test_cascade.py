"""The cascade treats each frame of a batch for itself, and its fused layers equal the separate ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from batchemo.faces.cascade import Cascade, _FusedStem

CPU = torch.device("cpu")
MIN_FACE_PX = 40

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("exact", [True, False])
def test_many_frames_at_once_are_as_one_by_one(exact: bool, frames: list[NDArray[np.uint8]]) -> None:
    cascade = Cascade(min_face_px=MIN_FACE_PX, exact=exact, device=CPU)
    together = cascade.detect(frames[::4])
    for frame, faces in zip(frames[::4], together, strict=True):
        (alone,) = cascade.detect([frame])
        np.testing.assert_allclose(faces.boxes, alone.boxes, atol=1e-3)
        np.testing.assert_allclose(faces.landmarks, alone.landmarks, atol=1e-3)


@given(st.integers(12, 40), st.integers(12, 40), st.integers(0, 9))
def test_the_fused_stem_equals_its_layers_one_after_the_other(height: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    conv, rectify = nn.Conv2d(3, 10, 3), nn.PReLU(10)
    rectify.weight.data = torch.linspace(-1.4, 1.4, 10)
    pixels = torch.randint(256, (2, 3, height, width)).float().contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = functional.max_pool2d(rectify(conv((pixels - 127.5) / 128)), 2, 2, ceil_mode=True)
        together = _FusedStem(conv, rectify)
        torch.testing.assert_close(together(pixels), expected, rtol=0, atol=1e-5)
        with pytest.MonkeyPatch.context() as patch:  # as on a GPU, or in a torch without oneDNN
            patch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
            torch.testing.assert_close(together(pixels), expected, rtol=0, atol=1e-5)
