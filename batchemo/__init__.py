"""batchemo: emotion timelines of every face in folders of pictures and videos.

import batchemo
faces = batchemo.load("results")
batchemo.share(faces, by="media")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchemo import plot as plot
    from batchemo.analysis import resample, share, transitions
    from batchemo.results import load
    from batchemo.smoothing import smooth
    from batchemo.stretches import episodes

__version__ = "0.1.0"
__all__ = ["__version__", "episodes", "load", "plot", "resample", "share", "smooth", "transitions"]

_HOMES = {
    "episodes": "stretches",
    "load": "results",
    "resample": "analysis",
    "share": "analysis",
    "smooth": "smoothing",
    "transitions": "analysis",
}


def __getattr__(name: str) -> object:
    # Reading results loads pyarrow and pandas, which `batchemo --help` does not need.
    if name in _HOMES:
        return getattr(importlib.import_module(f"batchemo.{_HOMES[name]}"), name)
    if name == "plot":
        return importlib.import_module("batchemo.plot")
    raise AttributeError(f"module 'batchemo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
