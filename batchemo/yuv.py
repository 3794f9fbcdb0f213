"""Pictures as videos hold them: luma, and colours at half its sides (YUV 4:2:0, 8 bits, limited range)."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray

_BLACK, _LUMA_STEPS = 16, 219
_NO_COLOUR, _COLOUR_STEPS = 128, 224
"""Where luma begins, where colours are none, and how far both go (ITU-R BT.601)."""

_RED_AND_BLUE = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""Shares of red and blue in luma by the code of the matrix (ITU-T H.273, table 4); 2, unspecified, is read as FFmpeg does."""


class Colours(NamedTuple):
    """What values mean, as codes of ITU-T H.273."""

    matrix: int
    primaries: int
    transfer: int

    @property
    def known(self) -> bool:
        """Whether pictures with them can be drawn on."""
        return self.matrix in _RED_AND_BLUE


SRGB = Colours(matrix=6, primaries=1, transfer=13)
"""Of RGB pictures by the matrix of SMPTE 170M, OpenCV's."""


@dataclasses.dataclass(frozen=True, slots=True)
class Planes:
    """`luma` uint8 H x W, both even; `blue` and `red` (differences) uint8 H/2 x W/2; not to be changed but in a `copy`.

    `whole` is all three one after the other, uint8 H * 3/2 x W, where they lie so in memory.
    """

    luma: NDArray[np.uint8]
    blue: NDArray[np.uint8]
    red: NDArray[np.uint8]
    colours: Colours = SRGB
    whole: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        height, width = self.luma.shape
        if height % 2 or width % 2 or not self.blue.shape == self.red.shape == (height // 2, width // 2):
            raise ValueError(f"planes do not agree: {self.luma.shape}, {self.blue.shape}, {self.red.shape}")

    @classmethod
    def of(cls, pixels: NDArray[np.uint8]) -> Self:
        """Of a picture, RGB uint8 H x W x 3; where a side is odd, its last pixels are repeated."""
        height, width = pixels.shape[:2]
        even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") if height % 2 or width % 2 else pixels
        return cls._in(cv2.cvtColor(even, cv2.COLOR_RGB2YUV_I420).astype(np.uint8, copy=False), SRGB)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.luma.shape[1], self.luma.shape[0]

    def copy(self, *, rows: int = 0) -> Self:
        """The same to be drawn on, with room for `rows` (an even number) more below."""
        width, height = self.size
        made = self._in(np.empty(((height + rows) * 3 // 2, width), np.uint8), self.colours)
        made.luma[:height], made.blue[: height // 2], made.red[: height // 2] = self.luma, self.blue, self.red
        return made

    def packed(self) -> NDArray[np.uint8]:
        """All planes one after the other, uint8 H * 3/2 x W."""
        if self.whole is not None:
            return self.whole
        return np.concatenate((self.luma.ravel(), self.blue.ravel(), self.red.ravel())).reshape(-1, self.luma.shape[1])

    def converted_to(self, colours: Colours) -> Self:
        """The same picture by other `colours`."""
        if colours == self.colours:
            return self
        made = dataclasses.replace(self.copy(), colours=colours)
        made.put(self.rgb(0, 0, *self.size), 0, 0)
        return made

    def rgb(self, left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
        """That part, whose corners are even, as uint8 H x W x 3."""
        size = right - left, bottom - top
        halves = slice(top // 2, bottom // 2), slice(left // 2, right // 2)
        blue, red = (cv2.resize(plane[halves], size, interpolation=cv2.INTER_NEAREST) for plane in (self.blue, self.red))
        return np.asarray(cv2.transform(cv2.merge([self.luma[top:bottom, left:right], blue, red]), _to_rgb(self.colours.matrix)), np.uint8)

    def put(self, pixels: NDArray[np.uint8], left: int, top: int) -> None:
        """Replaces the part at even `left` and `top` by `pixels`, RGB uint8 H x W x 3 with even sides."""
        height, width = pixels.shape[:2]
        values = cv2.transform(pixels, _from_rgb(self.colours.matrix))
        self.luma[top : top + height, left : left + width] = values[..., 0]
        # Two colours at a time would be a path that OpenCV has no quick one for.
        means = cv2.resize(values, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        halves = slice(top // 2, (top + height) // 2), slice(left // 2, (left + width) // 2)
        self.blue[halves], self.red[halves] = means[..., 1], means[..., 2]

    @classmethod
    def _in(cls, packed: NDArray[np.uint8], colours: Colours) -> Self:
        height, width = packed.shape[0] * 2 // 3, packed.shape[1]
        luma, blue, red = np.split(packed.reshape(-1), [height * width, height * width * 5 // 4])
        halves = height // 2, width // 2
        return cls(luma.reshape(height, width), blue.reshape(halves), red.reshape(halves), colours, packed)


@functools.cache
def _from_rgb(matrix: int) -> NDArray[np.float64]:
    """3 x 4: what RGB, 0 to 255, times it gives luma, blue and red."""
    red, blue = _RED_AND_BLUE[matrix]
    luma = np.array([red, 1 - red - blue, blue])
    to_blue, to_red = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue)), (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
    rows = np.stack([luma * _LUMA_STEPS, to_blue * _COLOUR_STEPS, to_red * _COLOUR_STEPS]) / 255
    return np.column_stack([rows, [_BLACK, _NO_COLOUR, _NO_COLOUR]])


@functools.cache
def _to_rgb(matrix: int) -> NDArray[np.float64]:
    turn, offset = _from_rgb(matrix)[:, :3], _from_rgb(matrix)[:, 3]
    back = np.linalg.inv(turn)
    return np.column_stack([back, -back @ offset])
