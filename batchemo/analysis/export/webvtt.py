"""WebVTT captions, which players show over the video."""

from __future__ import annotations

from pathlib import Path

from batchemo import __version__
from batchemo.analysis.export.spans import read_spans
from batchemo.atomic import write_text
from batchemo.results.catalog import MediumResults


def write_webvtt(results: Path, medium: MediumResults, path: Path) -> None:
    """Writes a cue for each episode: `#<track> <emotion> <peak probability>`."""
    cues = [
        f"{_clock(span.start_ms)} --> {_clock(span.end_ms)}\n#{span.track_id} {_escaped(span.emotion)} {span.peak_probability:.0%}\n"
        for span in read_spans(results, medium)
    ]
    note = f"NOTE Apparent expressions in {_one_line(medium.row.media)}, by batchemo {__version__}\n"
    write_text(path, "\n".join(["WEBVTT\n", note, *cues]))


def _clock(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:03}"


def _escaped(text: str) -> str:
    return _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _one_line(text: str) -> str:
    """Replaces what would end a note or begin a cue."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text).replace("-->", "->")
