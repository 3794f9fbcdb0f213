"""Live displays on stderr: the progress of a run, and the speeds of a benchmark."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from batchemo.cli.messages import describe_failure, escape_markup, line_console, table_console
from batchemo.cli.streams import is_unicode
from batchemo.records import MediaRow
from batchemo.run.heartbeat import read_heartbeats
from batchemo.run.plan import STAYS_BLURRED, RunPlan
from batchemo.run.run import RunCallbacks

if TYPE_CHECKING:
    from batchemo.cli.benchmark import Throughput

_REFRESH_SECONDS = 0.5
_LOG_SECONDS = 60
"""Between two lines on progress where stderr is no terminal: a file, or the log of a scheduler."""
_LOADING = "Loading the networks"


class RunProgress:
    """Shows a run while it lasts: a progress bar, or a line a minute where stderr is no terminal, and each failure.

    A context manager around the run, which is given `callbacks`. `finished` holds the names of media that are done.
    """

    def __init__(self, *, quiet: bool, verbose: bool) -> None:
        self.finished: set[str] = set()
        self.callbacks = RunCallbacks(started=self._on_started, finished=self._on_finished)
        self._quiet = quiet
        self._verbose = verbose
        self._console = line_console(stderr=True)
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
        self._finished_bytes = 0
        self._stop = threading.Event()
        self._poller: threading.Thread | None = None

    def __enter__(self) -> RunProgress:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._poller is not None:
            self._poller.join()
        self._progress.stop()

    def _on_started(self, plan: RunPlan, heartbeats: Path) -> None:
        if plan.stays_blurred and not self._quiet:
            self._console.print(escape(STAYS_BLURRED))
        self._sizes = {medium.name: medium.size_bytes() for medium in plan.todo}
        self._outputs = {medium.output: medium.name for medium in plan.todo}
        self._task = self._progress.add_task(_LOADING, total=self._total_bytes, media=f"0/{len(self._sizes)}", fps=0.0)
        self._poller = threading.Thread(target=self._poll, args=(heartbeats,), daemon=True)
        self._poller.start()

    def _on_finished(self, row: MediaRow) -> None:
        self.finished.add(row.media)
        self._finished_bytes += self._sizes.get(row.media, 0)
        if row.status == "failed" and not self._quiet:
            self._console.print(f"[red]failed[/red] {describe_failure(row)}")
        elif self._verbose:
            counts = f"{row.n_frames_analysed} frames, {row.n_faces} faces, {row.seconds_taken:.1f} s"
            self._console.print(f"{escape_markup(row.media)}: {counts}")

    def _poll(self, heartbeats: Path) -> None:
        began = logged = time.monotonic()
        while not self._stop.wait(_REFRESH_SECONDS) and self._task is not None and heartbeats.is_dir():
            frames, read_bytes = self._read_progress(heartbeats)
            now = time.monotonic()
            fps = frames / (now - began)
            self._progress.update(
                self._task,
                description="Analysing" if frames or self.finished else _LOADING,
                completed=read_bytes,
                media=f"{len(self.finished)}/{len(self._sizes)}",
                fps=fps,
            )
            if now - logged > _LOG_SECONDS and not self._quiet and not self._console.is_terminal:
                logged = now
                share = read_bytes / self._total_bytes
                self._console.print(f"{len(self.finished)} of {len(self._sizes)} media, {share:.0%}, {fps:.0f} frames a second")

    def _read_progress(self, heartbeats: Path) -> tuple[int, float]:
        """Frames analysed and bytes read so far. A medium that is retried has a heartbeat of the dead worker as well."""
        frames = 0
        shares: dict[str, float] = {}
        for beat in read_heartbeats(heartbeats):
            frames += beat.frames
            name = self._outputs.get(beat.output, "")
            if name not in self.finished:
                shares[name] = max(beat.share, shares.get(name, 0.0))
        return frames, self._finished_bytes + sum(share * self._sizes.get(name, 0) for name, share in shares.items())

    @property
    def _total_bytes(self) -> int:
        return sum(self._sizes.values()) or 1


class SpeedTable:
    """Speeds of a benchmark: the latest on stderr while it lasts, all of them on stdout at the end."""

    def __init__(self, *, quiet: bool) -> None:
        spinner = "dots" if is_unicode(sys.stderr) else "line"
        self._status = Console(stderr=True, quiet=quiet).status("Measuring; this takes a few minutes ...", spinner=spinner)
        self._speeds: list[Throughput] = []

    def __enter__(self) -> SpeedTable:
        self._status.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._status.__exit__(kind, error, trace)

    def add(self, speed: Throughput) -> Throughput:
        """Shows `speed`, keeps it for the table, and returns it."""
        self._speeds.append(speed)
        self._status.update(f"{escape(speed.what)}: {speed.frames_per_second:.0f} frames a second; going on ...")
        return speed

    def print_table(self, fixed: Mapping[str, float]) -> None:
        """Prints all speeds, the slowest stage, and the `fixed` seconds of a run (see `fixed_seconds`)."""
        table = Table(box=None, pad_edge=False)
        table.add_column("what")
        for name in ("processes", "frames a second", "peak memory, MB"):
            table.add_column(name, justify="right")
        table.add_column("CPU ms a frame")
        for speed in self._speeds:
            ordered = sorted(speed.stages_ms.items(), key=lambda item: -item[1])
            stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in ordered if spent >= 0.05)
            total = f"{sum(speed.stages_ms.values()):.1f}: {stages}"
            table.add_row(speed.what, str(speed.processes), f"{speed.frames_per_second:.0f}", str(speed.peak_mb), total)
        console = table_console()
        console.print(table)
        slowest = max(self._speeds, key=lambda speed: sum(speed.stages_ms.values()))
        console.print(
            f"Slowest stage: {slowest.limit}. Fixed cost of a run: {fixed['start']:.1f} s until the networks are loaded; "
            f"of --help {fixed['help']:.1f} s."
        )
