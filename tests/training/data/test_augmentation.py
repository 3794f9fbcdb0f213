"""Compression as a random change of pictures: how often, how strongly, and from the generator alone."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import torch
from torch import Generator, Tensor

from tests.patterns import pattern
from training.data.augmentation import augment
from training.recipe import Augmentation

STILL = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, low_resolution=0, mixup_alpha=0.0)


def pictures(count: int) -> Tensor:
    return torch.from_numpy(np.stack([pattern(seed % 7, seed) for seed in range(count)])[:, None])


def changed(some: Tensor, settings: Augmentation, *, seed: int = 0) -> Tensor:
    return augment(some, settings, Generator().manual_seed(seed))


def test_a_picture_is_compressed_as_jpeg_of_its_own_size() -> None:
    some = pictures(3)
    settings = dataclasses.replace(STILL, jpeg=1.0, jpeg_quality=(30, 30))
    for before, after in zip(some, changed(some, settings), strict=True):
        _, content = cv2.imencode(".jpg", before[0].numpy(), [cv2.IMWRITE_JPEG_QUALITY, 30])
        expected = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
        assert expected is not None
        assert np.array_equal((after[0] * 255).round().numpy(), expected)


def test_a_share_of_the_pictures_is_compressed_at_many_qualities() -> None:
    same = pictures(1).repeat(400, 1, 1, 1)
    settings = dataclasses.replace(STILL, jpeg=0.3)
    result = changed(same, settings)
    touched = (result - same / 255).abs().amax(dim=(1, 2, 3)) > 0.02
    assert 0.22 < touched.float().mean() < 0.38
    assert len({picture.numpy().tobytes() for picture in result}) > 20
    assert torch.equal(changed(same, settings), result)
    assert not torch.equal(changed(same, settings, seed=1), result)
