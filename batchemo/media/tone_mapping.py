"""High dynamic range (PQ, HLG) to what screens of 8 bits show: BT.709 with SDR's white."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

PQ, HLG = 16, 18
HIGH_DYNAMIC_RANGE = frozenset({PQ, HLG})
"""Transfers (ITU-T H.273, table 3) whose values mean light that a copy of 8 bits does not show."""

_WHITE_NITS = 100.0
"""Light of SDR's white on the display that it is graded on (ITU-R BT.2035): what is darker looks as in an SDR copy of the same film. The
reference white of HDR, 203 nits (ITU-R BT.2408-7), becomes 251 of 255."""
_HLG_PEAK_NITS, _HLG_GAMMA = 1000.0, 1.2
"""Of the display that HLG is graded on (ITU-R BT.2100-2, table 5)."""
_SDR_GAMMA = 2.4
"""ITU-R BT.1886, as nearly all SDR is graded."""
_KNEE = 0.75
"""Share of white's light up to which nothing changes. What is brighter is compressed more and more, so that highlights keep their shape."""

_TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
"""Linear light of BT.2020's primaries to BT.709's (ITU-R BT.2087-0, section 2)."""

_GRID = 65
"""Points a side of the look-up table: against the function itself, random pixels are off by .3 of 255 on average."""


def to_sdr(pixels: NDArray[np.uint8], *, transfer: int) -> NDArray[np.uint8]:
    """RGB uint8 H x W x 3 of BT.2020 and `transfer` (`PQ` or `HLG`) as BT.709 in SDR, same shape."""
    return np.asarray(Image.fromarray(pixels).filter(_table(transfer)), np.uint8)


def tone_map(values: NDArray[np.float64], *, transfer: int) -> NDArray[np.float64]:
    """N x 3, coded values 0 to 1 of BT.2020 and `transfer`, as coded values 0 to 1 of BT.709 in SDR."""
    light = _pq_nits(values) if transfer == PQ else _hlg_nits(values)
    wide = np.clip(light / _WHITE_NITS @ _TO_709.T, 0, None)
    brightest = wide.max(axis=1, keepdims=True)
    # By the brightest channel, so that hues stay.
    above = np.maximum(brightest - _KNEE, 0)
    compressed = _KNEE + above / (1 + above / (1 - _KNEE))
    scale = np.where(above > 0, compressed / np.maximum(brightest, _KNEE), 1.0)
    return np.asarray((wide * scale) ** (1 / _SDR_GAMMA))


def _pq_nits(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """SMPTE ST 2084, equation 4.1."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = values ** (1 / m2)
    return np.asarray(10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1))


def _hlg_nits(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """ITU-R BT.2100-2, table 5: the inverse of the camera's curve, then the display's, of each channel alone, as FFmpeg's zscale does."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
    return np.asarray(_HLG_PEAK_NITS * scene**_HLG_GAMMA)


@functools.cache
def _table(transfer: int) -> ImageFilter.Color3DLUT:
    steps = np.linspace(0, 1, _GRID)
    # Pillow's tables change red fastest.
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    found = tone_map(np.stack([red.ravel(), green.ravel(), blue.ravel()], axis=1), transfer=transfer)
    return ImageFilter.Color3DLUT(_GRID, found.ravel().tolist())
