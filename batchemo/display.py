"""What people see of a run in the terminal: a progress bar, a line where something fails, and the end of it."""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from batchemo.doctor import Finding
from batchemo.errors import typed
from batchemo.pulse import read_pulses
from batchemo.records import MediaRow
from batchemo.run import Plan, Report, Watch
from batchemo.summary import Count, Summary, summarise

_REFRESH_SECONDS = 0.5
_MANY = 40
_FEW = 0.1
"""Share of faces at or below which a mix of emotions stands for too few of them to go without saying so."""
_NO_FOLDING = 100_000


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

    def conclude(self, report: Report, out: Path, *, program: str, python: str) -> None:
        """The last words: what was found, what failed, and what to type next."""
        if self._quiet:
            return
        console = self._console
        if not report.rows:
            console.print("No pictures or videos found in the INPUT; see what counts with: " + escape(f"{program} run --help"))
            return
        total = summarise(out).total
        kept = len(report.rows) - len(report.analysed)
        before = f" ({kept} done before)" if kept else ""
        console.print(f"[bold]{len(report.rows)} media[/bold]{before} in {report.seconds:.0f} s.", highlight=False)
        console.print(f"{shown(str(out))} now holds {total.frames} frames, {total.faces} faces on {total.tracks} tracks.", highlight=False)
        if total.faces == 0 and total.frames:
            console.print(
                "No face was found. Faces smaller than --min-face-px (40) are not searched for; look at the pictures in annotated/."
            )
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
        if (out / "annotated").is_dir():
            steps.insert(1, (f"ls {typed(out / 'annotated')}", "pictures and videos with boxes and names"))
        for command, meaning in steps:
            console.print(f"  [cyan]{escape(command)}[/cyan]  {meaning}", highlight=False, soft_wrap=True)

    @staticmethod
    def as_dict(report: Report) -> dict[str, Any]:
        """The report for JSON."""
        rows = [row.as_dict() for row in report.rows]
        return {"run_id": report.run_id, "seconds": report.seconds, "analysed": list(report.analysed), "media": rows}

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
            frames, partial = 0, 0.0
            for beat in read_pulses(pulses):
                frames += beat.frames
                name = self._outputs.get(beat.output, "")
                if name not in self._finished:
                    partial += beat.share * self._sizes.get(name, 0)
            self._progress.update(
                self._task,
                completed=self._done_bytes + partial,
                media=f"{len(self._finished)}/{self._total}",
                fps=frames / (time.monotonic() - began),
            )


def print_summary(found: Summary) -> None:
    """A table on stdout; one line a medium where that is no terminal, so that `grep` finds whole names."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_NO_FOLDING)
    table = Table(box=None, pad_edge=False)
    for name in ("media", "status"):
        table.add_column(name, overflow="fold")
    for name in ("frames", "faces", "tracks", "uncertain"):
        table.add_column(name, justify="right")
    table.add_column("emotions of faces that are certain")
    for medium in found.media:
        table.add_row(shown(medium.media), medium.status, *_cells(medium.count))
    table.add_section()
    table.add_row("[bold]all[/bold]", "", *_cells(found.total))
    console.print(table, highlight=False)
    for medium in found.media:
        if medium.message:
            console.print(shown(medium.message), highlight=False, soft_wrap=True)


def print_findings(findings: Sequence[Finding]) -> None:
    """A line for each finding, on stdout."""
    console = Console()
    for finding in findings:
        mark = "[green]ok[/green]     " if finding.ok else "[red]missing[/red]" if finding.needed else "[yellow]absent[/yellow] "
        console.print(f"{mark} {finding.part:<17} {escape(finding.detail)}", highlight=False, soft_wrap=True)


def _cells(count: Count) -> tuple[str, ...]:
    shares = sorted(count.shares.items(), key=lambda item: -item[1])
    mix = ", ".join(f"{label} {share:.0%}" for label, share in shares[:3] if share >= 0.005)
    uncertain = f"{count.uncertain / count.faces:.0%}" if count.faces else ""
    certain = count.faces - count.uncertain
    if 0 < certain <= _FEW * count.faces:
        mix += f" (of {certain} alone)"
    return str(count.frames), str(count.faces), str(count.tracks), uncertain, mix


def shown(text: str) -> str:
    """Text that holds names of files, safe to print: control characters as escapes, and nothing taken for markup."""
    return escape("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
