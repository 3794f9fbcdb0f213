"""What people see of a run in the terminal: a progress bar, a line where something fails, and the end of it."""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from batchemo.doctor import Finding
from batchemo.errors import typed
from batchemo.palette import as_hex, colours
from batchemo.pulse import read_pulses
from batchemo.records import MediaRow
from batchemo.run import Plan, Report, Watch
from batchemo.summary import Count, Course, MediumSummary, Summary, summarise
from batchemo.verify import Verification

if TYPE_CHECKING:
    from batchemo.bench import Speed

_REFRESH_SECONDS = 0.5
_MANY = 40
_A_FEW = 5
_SMALLEST_FACE_PX = 20
"""Least that --min-face-px takes: MTCNN is not trained on smaller faces."""
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
_NO_FOLDING = 1000


class Display:
    """Shows a run on stderr. Use as a context manager around the run, with `watch` as the run's own."""

    def __init__(self, *, quiet: bool, verbose: bool) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("[progress.description]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[media]} media, {task.fields[fps]:.0f} frames a second,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._sizes: dict[str, int] = {}
        self._outputs: dict[str, str] = {}
        self._total = 0
        self._finished: set[str] = set()
        self._done_bytes = 0
        self._stop = threading.Event()
        self._poller: threading.Thread | None = None
        self.watch = Watch(started=self._started, finished=self._on_finished)

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._poller is not None:
            self._poller.join()
        self._progress.stop()

    def conclude(self, report: Report, out: Path, *, program: str, python: str, min_face_px: int) -> None:
        """The last words: what was found, what failed, and what to type next."""
        if self._quiet:
            return
        console = self._console
        if report.pruned:
            console.print(f"Removed the results of {_listed(report.pruned)}: not there any more.", highlight=False, soft_wrap=True)
        if report.vanished:
            told = f"Not there any more: {_listed(report.vanished)}. To remove their results: --prune"
            console.print(told, highlight=False, soft_wrap=True)
        if not report.rows:
            console.print("No pictures or videos found in the INPUT; see what counts with: " + escape(f"{program} run --help"))
            return
        total = summarise(out).total
        kept = len(report.rows) - len(report.analysed)
        before = f" ({kept} done before)" if kept else ""
        console.print(f"[bold]{len(report.rows)} media[/bold]{before} in {report.seconds:.0f} s.", highlight=False)
        console.print(f"{shown(str(out))} now holds {total.frames} frames, {total.faces} faces on {total.tracks} tracks.", highlight=False)
        self._say_where_no_face_is(report, min_face_px)
        failed_before = [row for row in report.failed if row.media not in self._finished]
        for row in failed_before[:_MANY]:
            console.print(f"[red]failed before[/red] {shown(row.media)}: {shown(row.message)}", highlight=False, soft_wrap=True)
        if failed_before:
            console.print(f"{len(failed_before)} media failed in an earlier run; to try them again: --retry-failed")
        if len(report.failed) == len(report.rows):
            return
        folder = typed(out)
        code = f"import batchemo; print(batchemo.load({json.dumps(str(out), ensure_ascii=False)}))"
        console.print("\nLook at it next:", highlight=False)
        steps = [
            (f"{program} summary {folder}", "a table of all media"),
            (f"{python} -c {shlex.quote(code)}", "the timeline in pandas"),
        ]
        if report.page is not None:
            steps.insert(0, (report.page.resolve().as_uri(), "a page to look at and to click through"))
        if (out / "annotated").is_dir():
            steps.insert(-1, (f"ls {typed(out / 'annotated')}", "pictures and videos with boxes and names"))
        for command, meaning in steps:
            console.print(f"  [cyan]{escape(command)}[/cyan]  {meaning}", highlight=False, soft_wrap=True)

    def _say_where_no_face_is(self, report: Report, min_face_px: int) -> None:
        """Nothing where every medium has faces; the usual reasons where none has."""
        seen = [row for row in report.rows if row.n_frames_analysed]
        without = [row for row in seen if not row.n_faces]
        if not without:
            return
        names = "; ".join(shown(row.media) for row in without[:_A_FEW]) + ("; ..." if len(without) > _A_FEW else "")
        self._console.print(f"No face was found in {len(without)} of {len(seen)} media: {names}", highlight=False, soft_wrap=True)
        if len(without) < len(seen):
            return
        sizes = sorted({(row.width, row.height) for row in without if row.width})
        pictures = f" (these pictures are {sizes[0][0]} x {sizes[0][1]})" if len(sizes) == 1 else ""
        smaller = f"; smaller ones: --min-face-px {_SMALLEST_FACE_PX}" if min_face_px > _SMALLEST_FACE_PX else ""
        reasons = [
            f"faces below {min_face_px} px are not searched for{pictures}{smaller}",
            "faces from the side or from behind, upside down or lying are not found: the detector knows upright ones seen from the front",
            "masks, hands, deep shadow and blur hide faces; drawings and animals have none for it",
        ]
        self._console.print("Why that may be:", highlight=False)
        for reason in reasons:
            self._console.print(f"  - {reason}", highlight=False, soft_wrap=True)

    @staticmethod
    def as_dict(report: Report) -> dict[str, Any]:
        """The report for JSON."""
        rows = [row.as_dict() for row in report.rows]
        lists = {name: list(getattr(report, name)) for name in ("analysed", "vanished", "pruned")}
        return {"run_id": report.run_id, "seconds": report.seconds, **lists, "media": rows}

    def _started(self, planned: Plan, pulses: Path) -> None:
        self._sizes = {medium.name: _size(medium.path) for medium in planned.todo}
        self._outputs = {medium.output: medium.name for medium in planned.todo}
        self._total = len(planned.todo)
        self._task = self._progress.add_task("Analysing", total=sum(self._sizes.values()) or 1, media=f"0/{self._total}", fps=0.0)
        self._poller = threading.Thread(target=self._poll, args=(pulses,), daemon=True)
        self._poller.start()

    def _on_finished(self, row: MediaRow) -> None:
        self._finished.add(row.media)
        self._done_bytes += self._sizes.get(row.media, 0)
        if row.status == "failed" and not self._quiet:
            self._progress.console.print(f"[red]failed[/red] {shown(row.media)}: {shown(row.message)}", highlight=False, soft_wrap=True)
        elif self._verbose:
            self._progress.console.print(
                f"{shown(row.media)}: {row.n_frames_analysed} frames, {row.n_faces} faces, {row.seconds_taken:.1f} s", highlight=False
            )

    def _poll(self, pulses: Path) -> None:
        began = time.monotonic()
        while not self._stop.wait(_REFRESH_SECONDS) and self._task is not None and pulses.is_dir():
            frames = 0
            shares: dict[str, float] = {}  # a medium that is tried again has the pulse of the worker that died, too
            for beat in read_pulses(pulses):
                frames += beat.frames
                name = self._outputs.get(beat.output, "")
                if name not in self._finished:
                    shares[name] = max(beat.share, shares.get(name, 0.0))
            partial = sum(share * self._sizes.get(name, 0) for name, share in shares.items())
            self._progress.update(
                self._task,
                completed=self._done_bytes + partial,
                media=f"{len(self._finished)}/{self._total}",
                fps=frames / (time.monotonic() - began),
            )


def print_summary(found: Summary, *, top: int | None = None) -> None:
    """A table on stdout. Where that is no terminal, one line a medium, so that `grep` finds whole names. `top` media only, if given."""
    console = Console()
    if top is None and console.is_terminal and len(found.media) > _MOST:
        top = _MOST
    colour_of = {name: as_hex(colour) for name, colour in zip(found.total.shares, colours(tuple(found.total.shares)), strict=True)}
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
            console.print(shown(medium.message), highlight=False, soft_wrap=True)


class SpeedTable:
    """Speeds as they are measured: the latest on stderr, all of them on stdout at the end."""

    def __init__(self, *, quiet: bool) -> None:
        self._status = Console(stderr=True, quiet=quiet).status("Measuring; this takes a few minutes ...")
        self._speeds: list[Speed] = []

    def __enter__(self) -> SpeedTable:
        self._status.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._status.__exit__(kind, error, trace)

    def add(self, speed: Speed) -> Speed:
        self._speeds.append(speed)
        self._status.update(f"{escape(speed.what)}: {speed.frames_per_second:.0f} frames a second; going on ...")
        return speed

    def conclude(self, fixed: Mapping[str, float]) -> None:
        table = Table(box=None, pad_edge=False)
        table.add_column("what")
        for name in ("processes", "frames a second", "most memory, MB"):
            table.add_column(name, justify="right")
        table.add_column("ms of processor a frame")
        for speed in self._speeds:
            ordered = sorted(speed.stages_ms.items(), key=lambda item: -item[1])
            stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in ordered if spent >= 0.05)
            total = f"{sum(speed.stages_ms.values()):.1f}: {stages}"
            table.add_row(speed.what, str(speed.processes), f"{speed.frames_per_second:.0f}", str(speed.peak_mb), total)
        console = Console()
        if not console.is_terminal:
            console = Console(width=_NO_FOLDING)
        console.print(table, highlight=False)
        slowest = max(self._speeds, key=lambda speed: sum(speed.stages_ms.values()))
        console.print(
            f"What limits it: {slowest.limit}. Fixed cost of a run: {fixed['start']:.1f} s until the networks are loaded; "
            f"of --help {fixed['help']:.1f} s.",
            highlight=False,
        )


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


def print_verification(found: Verification) -> None:
    """What is off, a line each, on stdout; what was looked at, and what could not be, on stderr."""
    console, aside = Console(), Console(stderr=True)
    for problem in found.problems:
        name = f"{shown(problem.media)}: " if problem.media else ""
        console.print(f"[red]{problem.kind}[/red] {name}{shown(problem.message)}", highlight=False, soft_wrap=True)
    if found.gone:
        told = f"Not where they were, so that their tables could only be compared with each other: {_listed(found.gone)}"
        aside.print(told, highlight=False, soft_wrap=True)
    looked = f"{found.frames} frames and {found.faces} faces of {found.media} media ({found.failed} failed, with a row that says why)"
    verdict = f"{len(found.problems)} problems in {looked}." if found.problems else f"All is accounted for: {looked}."
    aside.print(verdict, highlight=False, soft_wrap=True)


def print_findings(findings: Sequence[Finding]) -> None:
    """A line for each finding, on stdout."""
    console = Console()
    for finding in findings:
        mark = "[green]ok[/green]     " if finding.ok else "[red]missing[/red]" if finding.needed else "[yellow]absent[/yellow] "
        console.print(f"{mark} {finding.part:<17} {escape(finding.detail)}", highlight=False, soft_wrap=True)
    missing = [finding.part for finding in findings if finding.needed and not finding.ok]
    if missing:
        console.print(f"\n[red]A run cannot work without: {', '.join(missing)}.[/red] The lines above say how to get it.", highlight=False)
    else:
        console.print("\nAll that a run needs is here.", highlight=False)


def _count_cells(count: Count) -> dict[str, str]:
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
    name = _printable(medium.media)
    cells = {"media": escape(name) if colour_of else name, "status": medium.status}
    return _count_cells(medium.count) | cells | {"timeline": _sparkline(medium.course, colour_of)}


def _sparkline(course: Course, colour_of: dict[str, str]) -> str:
    """A block for each step: as high as its emotion is probable, in the emotion's colour if there are any."""
    parts = []
    for emotion, probability in zip(course.emotions, course.probabilities, strict=True):
        block = _BLOCKS[min(int(probability * len(_BLOCKS)), len(_BLOCKS) - 1)] if emotion else _NOBODY
        parts.append(f"[{colour_of[emotion]}]{block}[/]" if emotion in colour_of else block)
    return "".join(parts)


def shown(text: str) -> str:
    """Text that holds names of files, safe to print: control characters as escapes, and nothing taken for markup."""
    return escape(_printable(text))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _A_FEW} more" if len(names) > _A_FEW else ""
    return f"{len(names)} {'medium' if len(names) == 1 else 'media'} ({', '.join(shown(name) for name in names[:_A_FEW])}{more})"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
