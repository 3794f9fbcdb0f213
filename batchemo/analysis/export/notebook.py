"""The notebook of an analysis, opened on one's own results."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from batchemo.atomic import write_text
from batchemo.errors import UsageError, typed

NAME = "emotion_timeline.ipynb"

_ANYWHERE = r"""Path(os.environ.get(\"BATCHEMO_RESULTS\", \"results\"))"""
"""Where the notebook looks for results, as it stands in its JSON."""


def write_notebook(results: Path, path: Path) -> None:
    """Raises UsageError where there is one already: it may hold somebody's work."""
    if path.exists():
        raise UsageError(
            f"{path} is there already, and may hold your work; give another folder with --out, or open it with: jupyter lab {typed(path)}"
        )
    text = importlib.resources.files("batchemo.analysis.export").joinpath(NAME).read_text(encoding="utf-8")
    here = _in_json(f"Path({str(results.resolve())!r})")
    write_text(path, text.replace(_ANYWHERE, here))


def _in_json(code: str) -> str:
    return code.replace("\\", "\\\\").replace('"', '\\"')
