"""The colours of emotions are distinct for all kinds of colour vision."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab

from batchemo.palette import Colour, as_hex, colours
from batchemo.records import EMOTIONS

SIGHTS = {
    "full": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}
"""Matrices of Machado, Oliveira and Fernandes 2009 for linear RGB, severity 1."""


def seen(colour: Colour, sight: str) -> NDArray[np.float64]:
    encoded = np.array(colour) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    there = np.clip(SIGHTS[sight] @ linear, 0, 1)
    back = np.where(there <= 0.0031308, there * 12.92, 1.055 * there ** (1 / 2.4) - 0.055)
    return np.asarray(rgb2lab(back[None, None])[0, 0])


@pytest.mark.parametrize("sight", SIGHTS)
def test_emotions_can_be_distinguished(sight: str) -> None:
    pairs = itertools.combinations([seen(colour, sight) for colour in colours(EMOTIONS)], 2)
    assert min(float(deltaE_ciede2000(one, other)) for one, other in pairs) > (20 if sight == "full" else 10)


def test_other_labels_get_other_colours() -> None:
    found = colours(("happy", "bored", "sad", "amused"))
    assert found[0] == colours(EMOTIONS)[3]
    assert found[2] == colours(EMOTIONS)[4]
    assert len(set(found)) == 4
    assert len(colours([f"label {i}" for i in range(30)])) == 30
    assert len(set(colours([f"label {i}" for i in range(8)]))) == 8


def test_hex() -> None:
    assert as_hex((0, 158, 115)) == "#009e73"
