"""WebVTT captions: players show them over the video, and editors read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batchemo import __version__
from batchemo.analysis.export.spans import spans_of
from batchemo.atomic import write_text


def write_captions(results: Path, output: str, row: dict[str, Any], path: Path) -> None:
    """A cue for each episode: `#<track> <emotion> <peak probability>`."""
    cues = [
        f"{_clock(span.start_ms)} --> {_clock(span.end_ms)}\n#{span.track_id} {_escaped(span.emotion)} {span.peak_probability:.0%}\n"
        for span in spans_of(results, output, row)
    ]
    note = f"NOTE Apparent expressions in {_one_line(row['media'])}, by batchemo {__version__}\n"
    write_text(path, "\n".join(["WEBVTT\n", note, *cues]))


def _clock(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:03}"


def _escaped(text: str) -> str:
    return _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _one_line(text: str) -> str:
    """Names may hold what ends a note or begins a cue."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text).replace("-->", "->")
