"""Maps HDR video (PQ, HLG) to SDR: 8 bits, BT.709."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

PQ, HLG = 16, 18
HIGH_DYNAMIC_RANGE = frozenset({PQ, HLG})
"""Transfer characteristics (ITU-T H.273, table 3) that need tone mapping."""

_WHITE_NITS = 100.0
"""Luminance of SDR white on its reference display (ITU-R BT.2035), so that darker areas look as in an SDR grade. HDR reference white,
203 nits (ITU-R BT.2408-7), becomes 251 of 255."""
_HLG_PEAK_NITS, _HLG_GAMMA = 1000.0, 1.2
"""Of the HLG reference display (ITU-R BT.2100-2, table 5)."""
_SDR_GAMMA = 2.4
"""ITU-R BT.1886."""
_KNEE = 0.75
"""Fraction of SDR white up to which light is unchanged. Brighter light is compressed progressively, so that highlights keep their
detail."""

_TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
"""Linear BT.2020 to linear BT.709 (ITU-R BT.2087-0, section 2)."""

_LUT_POINTS = 65
"""Points per axis of the lookup table, whose error is a fraction of a grey level (see docs/benchmarks.md)."""


def to_sdr(pixels: NDArray[np.uint8], *, transfer: int) -> NDArray[np.uint8]:
    """Maps RGB uint8 H x W x 3 in BT.2020 with `transfer` (`PQ` or `HLG`) to BT.709 SDR of the same shape."""
    return np.asarray(Image.fromarray(pixels).filter(_lookup_table(transfer)), np.uint8)


def tone_map(values: NDArray[np.float64], *, transfer: int) -> NDArray[np.float64]:
    """Maps N x 3 coded values, 0 to 1, in BT.2020 with `transfer` to coded values, 0 to 1, in BT.709 SDR."""
    light = _pq_nits(values) if transfer == PQ else _hlg_nits(values)
    wide = np.clip(light / _WHITE_NITS @ _TO_709.T, 0, None)
    brightest = wide.max(axis=1, keepdims=True)
    # All channels are scaled by the brightest one, which keeps the hue.
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
    """ITU-R BT.2100-2, table 5: inverse OETF, then OOTF for each channel separately, as FFmpeg's zscale does."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
    return np.asarray(_HLG_PEAK_NITS * scene**_HLG_GAMMA)


@functools.cache
def _lookup_table(transfer: int) -> ImageFilter.Color3DLUT:
    steps = np.linspace(0, 1, _LUT_POINTS)
    # In Pillow's tables red changes fastest.
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    found = tone_map(np.stack([red.ravel(), green.ravel(), blue.ravel()], axis=1), transfer=transfer)
    return ImageFilter.Color3DLUT(_LUT_POINTS, found.ravel().tolist())
