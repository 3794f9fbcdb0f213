"""Exports the example notebook, which then opens your own results."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from batchemo.atomic import write_text
from batchemo.errors import UsageError, typed

NOTEBOOK_NAME = "emotion_timeline.ipynb"

_DEFAULT_PATH = r"""Path(os.environ.get(\"BATCHEMO_RESULTS\", \"results\"))"""
"""The line of the notebook that finds the results, as written in its JSON."""


def write_notebook(results: Path, path: Path) -> None:
    """Writes the notebook. Raises UsageError where it exists: it may hold your work."""
    if path.exists():
        raise UsageError(
            f"{path} exists, and may hold your work; give another folder with --out, or open it with: jupyter lab {typed(path)}"
        )
    text = importlib.resources.files("batchemo.analysis.export").joinpath(NOTEBOOK_NAME).read_text(encoding="utf-8")
    here = _in_json(f"Path({str(results.resolve())!r})")
    write_text(path, text.replace(_DEFAULT_PATH, here))


def _in_json(code: str) -> str:
    return code.replace("\\", "\\\\").replace('"', '\\"')
