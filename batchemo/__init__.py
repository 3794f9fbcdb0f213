"""batchemo: emotion timelines of every face in folders of pictures and videos.

import batchemo
faces = batchemo.load("results")
batchemo.share(faces, by="media")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchemo.analysis import plot as plot
    from batchemo.analysis.episodes import episodes
    from batchemo.analysis.smoothing import smooth
    from batchemo.analysis.statistics import resample, share, transitions
    from batchemo.results.load import load

__version__ = "0.1.0"
__all__ = ["__version__", "episodes", "load", "plot", "resample", "share", "smooth", "transitions"]

_HOMES = {
    "episodes": "analysis.episodes",
    "load": "results.load",
    "resample": "analysis.statistics",
    "share": "analysis.statistics",
    "smooth": "analysis.smoothing",
    "transitions": "analysis.statistics",
}


def __getattr__(name: str) -> object:
    # Reading results loads pyarrow and pandas, which `batchemo --help` does not need.
    if name in _HOMES:
        return getattr(importlib.import_module(f"batchemo.{_HOMES[name]}"), name)
    if name == "plot":
        return importlib.import_module("batchemo.analysis.plot")
    raise AttributeError(f"module 'batchemo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
