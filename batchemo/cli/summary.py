"""The summary in the terminal: a line a medium, with a small chart of its emotions over time."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from batchemo.cli.messages import escape_control, escape_markup
from batchemo.palette import as_ansi, as_hex, colours
from batchemo.report.summary import EmotionCourse, FaceCounts, MediumSummary, Summary

_FEW = 0.1
"""Share of faces at or below which a mix of emotions stands for too few of them to go without saying so."""
_COLUMNS = ("media", "status", "frames", "faces", "tracks", "uncertain", "timeline", "emotions")
_NUMBERS = ("frames", "faces", "tracks", "uncertain")
_WIDE_ONLY = ("status", "frames", "tracks", "uncertain")
_WIDE = 120
"""Width of a terminal that shows the whole table."""
_MOST = 200
"""Media that a terminal shows unasked: who wants more sorts, searches or asks for them."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_NOBODY = "·"


def print_summary(found: Summary, *, top: int | None = None) -> None:
    """A table on stdout. Where that is no terminal, one line a medium, so that `grep` finds whole names. `top` media only, if given."""
    console = Console()
    if top is None and console.is_terminal and len(found.media) > _MOST:
        top = _MOST
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
        typed_more = f"--top {len(found.media)} shows all, --sort orders them"
        console.print(f"and {len(found.media) - top} media more: {typed_more}", highlight=False, soft_wrap=True)
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
    named = " ".join(f"[{colour}]{_BLOCKS[-1]}[/] {escape(emotion)}" for emotion, colour in colour_of.items())
    console.print(
        f"\n{named}; high where probable, {_NOBODY} where nobody is in view. Emotions are those of certain faces.", highlight=False
    )


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
        mix += f" (of {certain} alone)"
    if not certain:
        mix = "all uncertain" if count.faces else "no face" if count.frames else ""
    numbers = {"frames": str(count.frames), "faces": str(count.faces), "tracks": str(count.tracks)}
    return numbers | {"uncertain": uncertain, "emotions": mix}


def _summary_cells(medium: MediumSummary, colour_of: dict[str, str]) -> dict[str, str]:
    """With the markup of rich where there are colours."""
    name = escape_control(medium.media)
    cells = {"media": escape(name) if colour_of else name, "status": medium.status}
    return _count_cells(medium.count) | cells | {"timeline": _sparkline(medium.course, colour_of)}


def _sparkline(course: EmotionCourse, colour_of: dict[str, str]) -> str:
    """A block for each step: as high as its emotion is probable, in the emotion's colour if there are any."""
    parts = []
    for emotion, probability in zip(course.emotions, course.probabilities, strict=True):
        block = _BLOCKS[min(int(probability * len(_BLOCKS)), len(_BLOCKS) - 1)] if emotion else _NOBODY
        parts.append(f"[{colour_of[emotion]}]{block}[/]" if emotion in colour_of else block)
    return "".join(parts)
