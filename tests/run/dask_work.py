"""How workers of Dask are called here: without torch, which takes seconds to load and which `Work` does not use."""

from __future__ import annotations

from unittest import mock

from batchemo.errors import MediaError
from batchemo.pipeline.segments import SegmentTaskResult
from batchemo.run import dask
from batchemo.run.tasks import Job, Outcomes


class TorchlessCall(dask.RemoteCall):
    def __call__(self, job: Job) -> Outcomes | SegmentTaskResult | MediaError:
        with mock.patch.object(dask, "set_up_worker"):
            return dask.RemoteCall.__call__(self, job)
