"""YUV 4:2:0 frames as videos store them: 8 bits, limited range, chroma at half resolution."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray

_LUMA_BLACK, _LUMA_RANGE = 16, 219
"""Offsets and ranges of luma and chroma in limited range (ITU-R BT.601)."""
_CHROMA_ZERO, _CHROMA_RANGE = 128, 224
"""Where luma begins, where colours are none, and how far both go (ITU-R BT.601)."""

_KR_KB = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""Luma coefficients Kr and Kb by matrix code (ITU-T H.273, table 4); 2, unspecified, as FFmpeg reads it."""


class Colours(NamedTuple):
    """The meaning of values, as codes of ITU-T H.273."""

    matrix: int
    primaries: int
    transfer: int

    @property
    def is_supported(self) -> bool:
        """Whether frames with this matrix can be drawn on."""
        return self.matrix in _KR_KB


SRGB = Colours(matrix=6, primaries=1, transfer=13)
"""Of RGB pictures converted with the matrix of SMPTE 170M, which OpenCV uses."""


@dataclasses.dataclass(frozen=True, slots=True)
class Planes:
    """`luma` uint8 H x W, both even; `cb` and `cr` uint8 H/2 x W/2. Read-only, except in a `copy`.

    `buffer`: the three planes in one array (I420), uint8 H * 3/2 x W, where they lie in memory like that.
    """

    luma: NDArray[np.uint8]
    cb: NDArray[np.uint8]
    cr: NDArray[np.uint8]
    colours: Colours = SRGB
    buffer: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        height, width = self.luma.shape
        if height % 2 or width % 2 or not self.cb.shape == self.cr.shape == (height // 2, width // 2):
            raise ValueError(f"planes do not agree: {self.luma.shape}, {self.cb.shape}, {self.cr.shape}")

    @classmethod
    def from_rgb(cls, pixels: NDArray[np.uint8]) -> Self:
        """Converts RGB uint8 H x W x 3; the last pixels of an odd side are repeated."""
        height, width = pixels.shape[:2]
        even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") if height % 2 or width % 2 else pixels
        return cls._from_buffer(cv2.cvtColor(even, cv2.COLOR_RGB2YUV_I420).astype(np.uint8, copy=False), SRGB)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px."""
        return self.luma.shape[1], self.luma.shape[0]

    def copy(self, *, rows: int = 0) -> Self:
        """A writable copy, with `rows` (an even number) more at the bottom, uninitialized."""
        width, height = self.size
        made = self._from_buffer(np.empty(((height + rows) * 3 // 2, width), np.uint8), self.colours)
        made.luma[:height], made.cb[: height // 2], made.cr[: height // 2] = self.luma, self.cb, self.cr
        return made

    def as_i420(self) -> NDArray[np.uint8]:
        """The three planes one after the other, uint8 H * 3/2 x W."""
        if self.buffer is not None:
            return self.buffer
        return np.concatenate((self.luma.ravel(), self.cb.ravel(), self.cr.ravel())).reshape(-1, self.luma.shape[1])

    def converted_to(self, colours: Colours) -> Self:
        """The same picture with other `colours`."""
        if colours == self.colours:
            return self
        made = dataclasses.replace(self.copy(), colours=colours)
        made.set_rgb(self.get_rgb(0, 0, *self.size), 0, 0)
        return made

    def get_rgb(self, left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
        """An area with even corners as RGB uint8 H x W x 3."""
        size = right - left, bottom - top
        chroma = slice(top // 2, bottom // 2), slice(left // 2, right // 2)
        cb, cr = (cv2.resize(plane[chroma], size, interpolation=cv2.INTER_NEAREST) for plane in (self.cb, self.cr))
        return np.asarray(cv2.transform(cv2.merge([self.luma[top:bottom, left:right], cb, cr]), _to_rgb(self.colours.matrix)), np.uint8)

    def set_rgb(self, pixels: NDArray[np.uint8], left: int, top: int) -> None:
        """Replaces the area at `left` and `top` (even) with `pixels`, RGB uint8 H x W x 3 with even sides."""
        height, width = pixels.shape[:2]
        values = cv2.transform(pixels, _from_rgb(self.colours.matrix))
        self.luma[top : top + height, left : left + width] = values[..., 0]
        # All three channels at once: OpenCV has no fast path for two.
        means = cv2.resize(values, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        chroma = slice(top // 2, (top + height) // 2), slice(left // 2, (left + width) // 2)
        self.cb[chroma], self.cr[chroma] = means[..., 1], means[..., 2]

    @classmethod
    def _from_buffer(cls, packed: NDArray[np.uint8], colours: Colours) -> Self:
        height, width = packed.shape[0] * 2 // 3, packed.shape[1]
        luma, cb, cr = np.split(packed.reshape(-1), [height * width, height * width * 5 // 4])
        chroma = height // 2, width // 2
        return cls(luma.reshape(height, width), cb.reshape(chroma), cr.reshape(chroma), colours, packed)


@functools.cache
def _from_rgb(matrix: int) -> NDArray[np.float64]:
    """3 x 4 matrix from RGB, 0 to 255, to luma, Cb and Cr."""
    kr, kb = _KR_KB[matrix]
    luma = np.array([kr, 1 - kr - kb, kb])
    to_cb, to_cr = (np.array([0, 0, 1]) - luma) / (2 * (1 - kb)), (np.array([1, 0, 0]) - luma) / (2 * (1 - kr))
    rows = np.stack([luma * _LUMA_RANGE, to_cb * _CHROMA_RANGE, to_cr * _CHROMA_RANGE]) / 255
    return np.column_stack([rows, [_LUMA_BLACK, _CHROMA_ZERO, _CHROMA_ZERO]])


@functools.cache
def _to_rgb(matrix: int) -> NDArray[np.float64]:
    matrix_3x3, offset = _from_rgb(matrix)[:, :3], _from_rgb(matrix)[:, 3]
    inverse = np.linalg.inv(matrix_3x3)
    return np.column_stack([inverse, -inverse @ offset])
