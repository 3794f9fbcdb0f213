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

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from batchemo.cli.doctor import DoctorCheck
from batchemo.errors import typed
from batchemo.media.discover import SkippedFile
from batchemo.media.foreign import RAW
from batchemo.records import MediaRow
from batchemo.report.summary import summarise
from batchemo.results.faces_left import FACES_LEFT
from batchemo.run.heartbeat import read_heartbeats
from batchemo.run.plan import STAYS_BLURRED, RunPlan, count_kinds
from batchemo.run.run import RunCallbacks, RunResult
from batchemo.verify.audit import Verification

if TYPE_CHECKING:
    from batchemo.cli.benchmark import Throughput

_REFRESH_SECONDS = 0.5
_SAY_EVERY_SECONDS = 60
"""How often a run says how far it is where no bar is shown: in a log of its own or of a scheduler."""
_LOADING = "Loading the networks"
_MANY = 40
_A_FEW = 5
_SMALLEST_FACE_PX = 20
"""Least that --min-face-px takes: MTCNN is not trained on smaller faces."""
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
        self.watch = RunCallbacks(started=self._started, finished=self._on_finished)

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._poller is not None:
            self._poller.join()
        self._progress.stop()

    def conclude(self, report: RunResult, out: Path, *, program: str, python: str, min_face_px: int) -> None:
        """The last words: what was found, what failed, and what to type next."""
        if self._quiet:
            return
        console = self._console
        if report.pruned:
            console.print(f"Removed the results of {_listed(report.pruned)}: not there any more.", highlight=False, soft_wrap=True)
        if report.vanished:
            told = f"Not there any more: {_listed(report.vanished)}. To remove their results: --prune"
            console.print(told, highlight=False, soft_wrap=True)
        if report.passed_over:
            console.print(f"{skipped_kinds_messages(report.passed_over)}.", highlight=False, soft_wrap=True)
        if not report.rows:
            told = "No pictures or videos were found there: nothing that is JPEG, PNG, WebP, TIFF ... or a video that FFmpeg reads"
            console.print(escape(told), highlight=False, soft_wrap=True)
            return
        total = summarise(out).total
        kept = len(report.rows) - len(report.analysed) - len(report.redrawn)
        counts = [(len(report.redrawn), "drawn again"), (kept, "done before")]
        before = ", ".join(f"{count} {what}" for count, what in counts if count)
        before = f" ({before})" if before else ""
        media = "1 medium" if len(report.rows) == 1 else f"{len(report.rows)} media"
        failed = f", [red]{len(report.failed)} failed[/red]," if report.failed else ""
        console.print(f"[bold]{media}[/bold]{before}{failed} in {report.seconds:.0f} s.", highlight=False)
        console.print(
            f"{escape_markup(str(out))} now holds {total.frames} frames, {total.faces} faces on {total.tracks} tracks.", highlight=False
        )
        self._say_what_was_read_in_part(report)
        self._say_where_no_face_is(report, min_face_px)
        self.say_where_faces_are_left(report)
        failed_before = [row for row in report.failed if row.media not in self._finished]
        for row in failed_before[:_MANY]:
            console.print(f"[red]failed before[/red] {_told(row)}", highlight=False, soft_wrap=True)
        if failed_before:
            console.print(f"{len(failed_before)} media failed in an earlier run; to try them again: --retry-failed")
        if len(report.failed) == len(report.rows):
            return
        folder = typed(out)
        code = f"import batchemo; print(batchemo.load({json.dumps(str(out), ensure_ascii=False)}))"
        console.print("\nLook at it next:", highlight=False)
        steps = [
            ("a table of all media", f"{program} summary {folder}"),
            ("the timeline in pandas", f"{python} -c {shlex.quote(code)}"),
        ]
        if report.page is not None:
            steps.insert(0, ("a page to click through", report.page.resolve().as_uri()))
        if (out / "annotated").is_dir():
            steps.insert(-1, ("annotated copies", f"ls {typed(out / 'annotated')}"))
        width = max(len(meaning) for meaning, _ in steps)
        for meaning, command in steps:
            console.print(f"  {meaning:<{width}}  [cyan]{escape(command)}[/cyan]", highlight=False, soft_wrap=True)

    def say_where_faces_are_left(self, report: RunResult) -> None:
        """In which blurred copies, of this run or an earlier one, a face may still be seen, and when."""
        for row in report.faces_left[:_MANY]:
            self._console.print(f"[red]not all blurred[/red] {_told(row)}", highlight=False, soft_wrap=True)
        more = len(report.faces_left) - _MANY
        if more > 0:
            self._console.print(
                f"[red]not all blurred[/red] {more} media more; column `message` of media.parquet says when", highlight=False
            )

    def _say_what_was_read_in_part(self, report: RunResult) -> None:
        """Which media are done, though something of them is lost or was not looked at."""
        partly = [row for row in report.rows if row.status == "done" and row.message and row.error != FACES_LEFT]
        for row in partly[:_MANY]:
            self._console.print(
                f"[yellow]in part[/yellow] {escape_markup(row.media)}: {escape_markup(row.message)}", highlight=False, soft_wrap=True
            )
        if len(partly) > _MANY:
            told = f"{len(partly) - _MANY} media more; column `message` of media.parquet says what"
            self._console.print(f"[yellow]in part[/yellow] {told}", highlight=False, soft_wrap=True)

    def _say_where_no_face_is(self, report: RunResult, min_face_px: int) -> None:
        """Nothing where every medium has faces; the usual reasons where none has."""
        seen = [row for row in report.rows if row.n_frames_analysed]
        without = [row for row in seen if not row.n_faces]
        if not without:
            return
        names = "; ".join(escape_markup(row.media) for row in without[:_A_FEW]) + ("; ..." if len(without) > _A_FEW else "")
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
    def as_dict(report: RunResult) -> dict[str, Any]:
        """The report for JSON."""
        rows = [row.as_dict() for row in report.rows]
        lists = {name: list(getattr(report, name)) for name in ("analysed", "redrawn", "vanished", "pruned")}
        left = [row.media for row in report.faces_left]
        passed_over = count_kinds(report.passed_over)
        return {"run_id": report.run_id, "seconds": report.seconds, **lists, "faces_left": left, "passed_over": passed_over, "media": rows}

    def _started(self, planned: RunPlan, pulses: Path) -> None:
        if planned.stays_blurred and not self._quiet:
            self._progress.console.print(escape(STAYS_BLURRED), highlight=False, soft_wrap=True)
        self._sizes = {medium.name: _size(medium.path) for medium in planned.todo}
        self._outputs = {medium.output: medium.name for medium in planned.todo}
        self._total = len(planned.todo)
        self._task = self._progress.add_task(_LOADING, total=sum(self._sizes.values()) or 1, media=f"0/{self._total}", fps=0.0)
        self._poller = threading.Thread(target=self._poll, args=(pulses,), daemon=True)
        self._poller.start()

    def _on_finished(self, row: MediaRow) -> None:
        self._finished.add(row.media)
        self._done_bytes += self._sizes.get(row.media, 0)
        if row.status == "failed" and not self._quiet:
            self._progress.console.print(f"[red]failed[/red] {_told(row)}", highlight=False, soft_wrap=True)
        elif self._verbose:
            self._progress.console.print(
                f"{escape_markup(row.media)}: {row.n_frames_analysed} frames, {row.n_faces} faces, {row.seconds_taken:.1f} s",
                highlight=False,
            )

    def _poll(self, pulses: Path) -> None:
        began = said = time.monotonic()
        while not self._stop.wait(_REFRESH_SECONDS) and self._task is not None and pulses.is_dir():
            frames = 0
            shares: dict[str, float] = {}  # a medium that is tried again has the pulse of the worker that died, too
            for beat in read_heartbeats(pulses):
                frames += beat.frames
                name = self._outputs.get(beat.output, "")
                if name not in self._finished:
                    shares[name] = max(beat.share, shares.get(name, 0.0))
            partial = sum(share * self._sizes.get(name, 0) for name, share in shares.items())
            now = time.monotonic()
            self._progress.update(
                self._task,
                description="Analysing" if frames or self._finished else _LOADING,
                completed=self._done_bytes + partial,
                media=f"{len(self._finished)}/{self._total}",
                fps=frames / (now - began),
            )
            if now - said > _SAY_EVERY_SECONDS and not self._quiet and not self._console.is_terminal:
                said = now
                share = (self._done_bytes + partial) / (sum(self._sizes.values()) or 1)
                told = f"{len(self._finished)} of {self._total} media, {share:.0%}, {frames / (now - began):.0f} frames a second"
                self._console.print(told, highlight=False)


class SpeedTable:
    """Speeds as they are measured: the latest on stderr, all of them on stdout at the end."""

    def __init__(self, *, quiet: bool) -> None:
        self._status = Console(stderr=True, quiet=quiet).status("Measuring; this takes a few minutes ...")
        self._speeds: list[Throughput] = []

    def __enter__(self) -> SpeedTable:
        self._status.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._status.__exit__(kind, error, trace)

    def add(self, speed: Throughput) -> Throughput:
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


_READERS = {"pyav": "PyAV, frame by frame", "ffmpeg": "the ffmpeg command"}


def print_verification(found: Verification) -> None:
    """What is off, a line each, on stdout; what was looked at, and what could not be, on stderr."""
    console, aside = Console(), Console(stderr=True)
    for problem in found.problems:
        name = f"{escape_markup(problem.media)}: " if problem.media else ""
        console.print(f"[red]{problem.kind}[/red] {name}{escape_markup(problem.message)}", highlight=False, soft_wrap=True)
    if found.gone:
        told = f"Not where they were, so that their tables could only be compared with each other: {_listed(found.gone)}"
        aside.print(told, highlight=False, soft_wrap=True)
    frames = f"{found.frames} frames" + (f", {found.frames_analysed} analysed," if found.frames_analysed != found.frames else "")
    looked = f"{frames} and {found.faces} faces of {found.media} media ({found.failed} failed, with a row that says why)"
    count = len(found.problems)
    again = f", decoded again by {_READERS[found.reader]}," if found.reader else ""
    verdict = f"{count} problem{'' if count == 1 else 's'}{again} in {looked}." if count else f"All{again} is accounted for: {looked}."
    aside.print(verdict, highlight=False, soft_wrap=True)


def print_findings(findings: Sequence[DoctorCheck]) -> None:
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


def skipped_kinds_messages(passed_over: Sequence[SkippedFile]) -> str:
    """Pictures that were passed over, each kind once, and what to type to have them analysed; safe to print."""
    kinds = count_kinds(passed_over)
    names = [f"{kind['count']} {_named(kind['kind'], kind['count'])} ({kind['extension'] or 'no extension'})" for kind in kinds]
    example = escape_markup(kinds[0]["example"])
    return f"Passed over: {escape_markup(', '.join(names))}; convert them to JPEG or PNG first, for example with: {example}"


def _named(kind: str, count: int) -> str:
    return f"{kind}s" if kind == RAW and count > 1 else kind


def escape_markup(text: str) -> str:
    """Text that holds names of files, safe to print: control characters as escapes, and nothing taken for markup."""
    return escape(escape_control(text))


def escape_control(text: str) -> str:
    """Text with what is not printable, such as line breaks and turns of direction, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _told(row: MediaRow) -> str:
    """Why a medium failed; most messages name it themselves."""
    return escape_markup(row.message if row.media in row.message else f"{row.media}: {row.message}")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _A_FEW} more" if len(names) > _A_FEW else ""
    return f"{len(names)} {'medium' if len(names) == 1 else 'media'} ({', '.join(escape_markup(name) for name in names[:_A_FEW])}{more})"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
