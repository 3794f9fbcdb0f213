"""The summary in the terminal: a line per medium, with a small chart of its emotions over time."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from batchemo.cli.messages import escape_control, escape_markup
from batchemo.cli.streams import is_unicode
from batchemo.palette import as_ansi, as_hex, colours
from batchemo.report.summary import EmotionTimeline, FaceCounts, MediumSummary, Summary

_FEW = 0.1
"""Share of certain faces up to which the number of them is printed beside their emotions."""
_COLUMNS = ("media", "status", "frames", "faces", "tracks", "uncertain", "timeline", "emotions")
_NUMBERS = ("frames", "faces", "tracks", "uncertain")
_WIDE_ONLY = ("status", "frames", "tracks", "uncertain")
_WIDE = 120
"""Width of a terminal that shows the whole table."""
_MAX_MEDIA = 200
"""Media that a terminal shows without --top."""
_BLOCKS, _NO_FACE = "▁▂▃▄▅▆▇█", "·"
_ASCII_BLOCKS, _ASCII_NO_FACE = ".:-=+*#@", "_"
"""For consoles that have no block characters."""


def print_summary(found: Summary, *, top: int | None = None) -> None:
    """Prints a table on stdout, of `top` media if given.

    Where stdout is no terminal, it is one line per medium, so that `grep` finds whole names.
    """
    console = Console()
    if top is None and console.is_terminal and len(found.media) > _MAX_MEDIA:
        top = _MAX_MEDIA
    written = as_ansi if console.color_system == "standard" else as_hex
    labels = tuple(found.total.shares)
    colour_of = {name: written(colour) for name, colour in zip(labels, colours(labels), strict=True)}
    rows = [_summary_cells(medium, colour_of if console.is_terminal else {}) for medium in found.media[:top]]
    rows.append(_count_cells(found.total) | {"media": "all", "status": "", "timeline": ""})
    if console.is_terminal:
        _print_table(console, rows, colour_of)
    else:
        _print_lines(rows)
    if top is not None and top < len(found.media) and console.is_terminal:
        hint = f"--top {len(found.media)} shows all, --sort orders them"
        console.print(f"and {len(found.media) - top} more media: {hint}", highlight=False, soft_wrap=True)
    for medium in found.media[:top]:
        if medium.message:
            name = "" if medium.status == "failed" else f"{medium.media}: "  # failures name their file
            console.print(escape_markup(f"{name}{medium.message}"), highlight=False, soft_wrap=True)


def _print_table(console: Console, rows: Sequence[dict[str, str]], colour_of: dict[str, str]) -> None:
    names = [name for name in _COLUMNS if console.width >= _WIDE or name not in _WIDE_ONLY]
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=name == "timeline", justify="right" if name in _NUMBERS else "left")
    for row in rows:
        failed = row["status"] == "failed"
        cells = row | {"status": "[red]failed[/red]", "emotions": row["emotions"] or "[red]failed[/red]"} if failed else row
        table.add_row(*(cells[name] for name in names), style="bold" if row is rows[-1] else None)
    console.print(table, highlight=False)
    blocks, no_face = _symbols()
    legend = " ".join(f"[{colour}]{blocks[-1]}[/] {escape(emotion)}" for emotion, colour in colour_of.items())
    console.print(f"\n{legend}; high where probable, {no_face} without a face. Emotions are those of certain faces.", highlight=False)


def _print_lines(rows: Sequence[dict[str, str]]) -> None:
    widths = {name: max(cell_len(row[name]) for row in (*rows, {name: name})) for name in _COLUMNS}
    for row in ({name: name for name in _COLUMNS}, *rows):
        cells = [
            " " * (widths[name] - cell_len(row[name])) + row[name] if name in _NUMBERS else set_cell_size(row[name], widths[name])
            for name in _COLUMNS
        ]
        print("  ".join(cells).rstrip())


def _count_cells(count: FaceCounts) -> dict[str, str]:
    shares = sorted(count.shares.items(), key=lambda item: -item[1])
    mix = ", ".join(f"{label} {share:.0%}" for label, share in shares[:3] if share >= 0.005)
    uncertain = f"{count.uncertain / count.faces:.0%}" if count.faces else ""
    certain = count.faces - count.uncertain
    if 0 < certain <= _FEW * count.faces:
        mix += f" (of only {certain})"
    if not certain:
        mix = "all uncertain" if count.faces else "no face" if count.frames else ""
    numbers = {"frames": str(count.frames), "faces": str(count.faces), "tracks": str(count.tracks)}
    return numbers | {"uncertain": uncertain, "emotions": mix}


def _summary_cells(medium: MediumSummary, colour_of: dict[str, str]) -> dict[str, str]:
    """The cells of a row, with the markup of rich where there are colours."""
    name = escape_control(medium.media)
    cells = {"media": escape(name) if colour_of else name, "status": medium.status}
    return _count_cells(medium.count) | cells | {"timeline": _sparkline(medium.course, colour_of)}


def _sparkline(course: EmotionTimeline, colour_of: dict[str, str]) -> str:
    """A block for each step: as high as its emotion is probable, in the emotion's colour if there are colours."""
    blocks, no_face = _symbols()
    parts = []
    for emotion, probability in zip(course.emotions, course.probabilities, strict=True):
        block = blocks[min(int(probability * len(blocks)), len(blocks) - 1)] if emotion else no_face
        parts.append(f"[{colour_of[emotion]}]{block}[/]" if emotion in colour_of else block)
    return "".join(parts)


def _symbols() -> tuple[str, str]:
    """Blocks of rising height, and the symbol of a step without faces."""
    return (_BLOCKS, _NO_FACE) if is_unicode(sys.stdout) else (_ASCII_BLOCKS, _ASCII_NO_FACE)
