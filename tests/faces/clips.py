"""Frames of the clips in `sample_media`."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

SAMPLES = Path(__file__).parents[2] / "sample_media"


def every(step: int, name: str) -> list[NDArray[np.uint8]]:
    with av.open(str(SAMPLES / name)) as container:
        return [
            np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in itertools.islice(container.decode(video=0), 0, None, step)
        ]
