"""The context of a run, which every stage of every medium shares: results folder, options, weights, progress."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from batchemo.options import RunOptions

ReportProgress = Callable[[int, float], None]
"""Called with the number of frames analysed since the last call, and the share of the medium that is done (0 to 1)."""


def ignore_progress(_frames: int, _share: float) -> None:
    """A `ReportProgress` that reports to no one."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunContext:
    """The results folder, the options and the weights of a run, made when the run is planned and sent to every worker.

    Functions that chain stages take it whole; each stage takes the values that it needs. `labels` are those of the weights.
    """

    results: Path
    options: RunOptions
    run_id: str
    labels: tuple[str, ...]
    weights_sha256: str
    report_progress: ReportProgress = ignore_progress

    def reporting_to(self, report_progress: ReportProgress) -> RunContext:
        """The same context for a medium whose progress goes to `report_progress`."""
        return dataclasses.replace(self, report_progress=report_progress)

    def in_segment(self, number: int, count: int) -> RunContext:
        """The same context for the `number`th of `count` segments: progress within it is reported as progress of the whole medium."""
        return self.reporting_to(lambda frames, share: self.report_progress(frames, (number + share) / count))

    def keep_alive(self) -> None:
        """Reports that work goes on after all frames have been analysed."""
        self.report_progress(0, 1.0)


class RenderProgress:
    """Reports how far an annotated copy of `frames` frames is. `frames` 0: they were just analysed, so the medium is nearly done."""

    def __init__(self, context: RunContext, *, frames: int) -> None:
        self._context = context
        self._frames = frames
        self._drawn = 0

    def next_frame(self) -> None:
        """Reports one more drawn frame."""
        self._drawn += 1
        self.keep_alive()

    def keep_alive(self) -> None:
        """Reports that a frame that takes long is still being drawn."""
        self._context.report_progress(0, min(1.0, self._drawn / self._frames) if self._frames else 1.0)
