"""Work that stands in for the analysis. Workers import this module, which loads neither torch nor what else takes seconds."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from batchemo.errors import MediaError
from batchemo.pipeline.segments import SegmentTaskResult, SplitTask
from batchemo.records import MediaRow, Medium, MediumOutcome, Segment
from batchemo.run.heartbeat import HeartbeatWriter, IsWanted
from batchemo.run.tasks import Job, Outcomes

if TYPE_CHECKING:
    from batchemo.pipeline.segmented_video import SegmentedVideo


def begin(_parent: int, _device: str) -> None:
    """How workers begin here: without torch, which takes seconds to load and which nothing here uses."""


@dataclasses.dataclass(frozen=True)
class Work:
    """Stands in for the analysis: media called `poison` kill their worker, `once` and `often` ones that of the first try
    or two, `refused` ones are damaged, `slow` ones do nothing for a minute, `pause` ones for a moment, `long` ones beat for a minute,
    `greedy` ones take memory. The row's `run_id` says how many media there were in the job."""

    heartbeats: Path

    def __call__(self, job: Job, *, wanted: IsWanted = lambda: True) -> Outcomes | SegmentTaskResult:
        heartbeat = HeartbeatWriter(self.heartbeats, job.medium.output, job.step_name, wanted=wanted)
        heartbeat.start()
        if isinstance(job.step, SplitTask) and not job.medium.name.startswith("poison"):
            return SegmentTaskResult(None, {}, (Segment(),))
        outcomes = tuple(self._outcome(medium, heartbeat, job) for medium in job.media)
        heartbeat.end()
        return outcomes

    def _outcome(self, medium: Medium, heartbeat: HeartbeatWriter, job: Job) -> MediumOutcome:
        deadly = {"poison": 99, "once": 1, "often": 2}
        if any(medium.name.startswith(name) and job.deaths < deaths for name, deaths in deadly.items()):
            os.kill(os.getpid(), signal.SIGKILL)
        if medium.name.startswith("refused"):
            raise MediaError("damaged", f"{medium.name} is damaged")
        if medium.name.startswith("slow"):
            time.sleep(60)
        if medium.name.startswith("pause"):
            time.sleep(1)
        for _ in range(1200 * medium.name.startswith("long")):
            time.sleep(0.05)
            heartbeat.beat(frames=1)
        if medium.name.startswith("greedy"):
            taken = np.ones(60_000_000)
            time.sleep(60)
            del taken
        heartbeat.beat(frames=3, share=1.0)
        return MediumOutcome(
            MediaRow(media=medium.name, path="", kind=medium.kind, status="done", n_frames=3, run_id=str(len(job.media))), {}
        )

    def max_attempts(self, job: Job) -> int:
        return 3 if job.medium.name.startswith("often") else 2

    def segmented_video(self, medium: Medium, segments: Sequence[Segment], *, ahead: int) -> SegmentedVideo:
        raise AssertionError((medium, segments, ahead))

    def write_failure(self, medium: Medium, error: MediaError) -> MediumOutcome:
        return MediumOutcome(MediaRow(medium.name, "", "video", "failed", error=error.kind, message=str(error)), {})
