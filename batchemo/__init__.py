"""batchemo: emotion timelines of every face in folders of pictures and videos.

import batchemo
faces = batchemo.load("results")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchemo.results import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> object:
    # Reading results loads pyarrow and pandas, which `batchemo --help` does not need.
    if name == "load":
        from batchemo.results import load  # noqa: PLC0415

        return load
    raise AttributeError(f"module 'batchemo' has no attribute {name!r}")
