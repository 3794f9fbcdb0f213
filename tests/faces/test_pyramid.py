"""Image pyramids: integral images equal adaptive pooling, mipmaps have the requested sizes."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional

from batchemo.faces.pyramid import IntegralPyramid, MipPyramid

CPU = torch.device("cpu")


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(st.integers(12, 90), st.integers(12, 90), st.integers(2, 40), st.integers(2, 40))
def test_integral_images_give_the_means_of_adaptive_pooling(height: int, width: int, rows: int, columns: int) -> None:
    frame = noise(height, width)
    pixels = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    integrals = IntegralPyramid.on_cpu([frame])
    assert torch.equal(integrals.scaled(rows, columns), functional.adaptive_avg_pool2d(pixels, (rows, columns)))
    area = [height // 5, height - height // 7, width // 6, width - width // 4]
    crop = functional.adaptive_avg_pool2d(pixels[:, :, area[0] : area[1], area[2] : area[3]], (24, 24))
    assert torch.equal(integrals.crops(torch.zeros(1, dtype=torch.int64), torch.tensor([area]), 24), crop)


def test_integral_images_made_on_a_device_are_those_of_the_cpu() -> None:
    frames = [noise(50, 70, seed) for seed in range(3)]
    on_device, on_cpu = IntegralPyramid.on_device(CPU, frames), IntegralPyramid.on_cpu(frames)
    assert torch.equal(on_device.scaled(20, 30), on_cpu.scaled(20, 30))


def test_integral_images_may_wrap_around() -> None:
    # 4,000 x 2,800 white pixels sum to more than an int32 holds.
    frame = np.full((2800, 4000, 3), 255, np.uint8)
    assert (IntegralPyramid.on_cpu([frame]).scaled(9, 11) == 255).all()


@given(st.integers(40, 400), st.integers(40, 400), st.floats(0.02, 1))
def test_mipmaps_give_the_size_that_is_asked_for(height: int, width: int, scale: float) -> None:
    pictures = MipPyramid([np.full((height, width, 3), 77, np.uint8)])
    scaled = pictures.scaled(max(1, int(height * scale)), max(1, int(width * scale)))
    assert scaled.shape == (1, 3, max(1, int(height * scale)), max(1, int(width * scale)))
    assert (scaled == 77).all()
    areas = torch.tensor([[0, height, 0, width], [height - 1, height, width - 1, width]])
    crops = pictures.crops(torch.zeros(2, dtype=torch.int64), areas, 24)
    assert crops.shape == (2, 3, 24, 24)
    assert (crops == 77).all()
