"""One run of a job: the analysis, its metrics and drift, the removal of old run records, and the notification."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from pathlib import Path

from batchemo.errors import LockedError
from batchemo.jobs.drift import find_drift
from batchemo.jobs.file import JobFile
from batchemo.jobs.history import RunRecord, read_run_record, read_run_records, remove_old_runs
from batchemo.jobs.metrics import run_metrics
from batchemo.jobs.notification import notify
from batchemo.options import RunOptions, Shard
from batchemo.records import Medium
from batchemo.run.plan import RunPlan, new_run_id
from batchemo.run.run import RunCallbacks, RunResult, run_media, write_page


@dataclasses.dataclass(frozen=True, slots=True)
class JobRun:
    """A job run that ended well. `notification_problem` is what went wrong with the notification, or empty."""

    result: RunResult
    record: RunRecord
    notification_problem: str


def run_job(job: JobFile, callbacks: RunCallbacks, *, shard: Shard | None = None) -> JobRun:
    """Runs `job`, or the part of it in `shard`, and adds `figures` and `drift` to its run record.

    Raises what `run_media` raises, once the run record holds the error and the notification is sent. A job that cannot start gets a record
    and a notification as well. Where another run holds the folder, that run keeps the record, and only the notification is sent.
    """
    options = job.options if shard is None else job.options.model_copy(update={"shard": shard})
    observer = _RunObserver(callbacks)
    try:
        result = run_media(job.inputs, job.out, options, observer.callbacks, job=job.name)
        record = _complete_record(job, options, result, observer)
        page = write_page(job.out) if options.report else None
    except BaseException as error:
        record = _failed_record(job, options, observer.folder, error)
        _notify(job, record, failed=True)
        raise
    worked_on = {*result.analysed, *result.redrawn}
    faces_left = any(row.media in worked_on for row in result.faces_left)
    failed = faces_left or bool(record.facts["figures"]["failed"])
    return JobRun(dataclasses.replace(result, page=page), record, _notify(job, record, failed=failed))


class _RunObserver:
    """Passes a run's callbacks on, and keeps the media of the run and the folder of its record."""

    def __init__(self, callbacks: RunCallbacks) -> None:
        self.media: tuple[Medium, ...] = ()
        self.folder: Path | None = None
        self._inner = callbacks
        self.callbacks = RunCallbacks(started=self._on_started, finished=callbacks.finished)

    def _on_started(self, plan: RunPlan, heartbeats: Path) -> None:
        self.media, self.folder = plan.todo, heartbeats.parent
        self._inner.started(plan, heartbeats)


def _complete_record(job: JobFile, options: RunOptions, result: RunResult, observer: _RunObserver) -> RunRecord:
    record = read_run_record(job.out / "runs" / result.run_id)
    if record is None:
        raise OSError(f"{job.out / 'runs' / result.run_id / 'run.json'} has vanished")
    rows = {row.media: row for row in result.rows if row.run_id == result.run_id}
    record.facts["figures"] = run_metrics(job.out, observer.media, rows, seconds=result.seconds)
    record.facts["drift"] = find_drift(record.facts, read_run_records(job.out, job.name)).as_dict()
    record.save()
    remove_old_runs(job.out, job.name, runs=job.retention.runs, shard=str(options.shard or ""))
    return record


def _failed_record(job: JobFile, options: RunOptions, folder: Path | None, error: BaseException) -> RunRecord:
    """The record of a run that raised `error`, a new one where the run never started."""
    record = read_run_record(folder) if folder is not None else None
    if record is None:
        now = datetime.datetime.now(datetime.UTC)
        run_id = new_run_id()
        facts = {
            "run_id": run_id,
            "job": job.name,
            "started": now.isoformat(timespec="milliseconds"),
            "inputs": [str(path) for path in job.inputs],
            "options": options.as_dict(),
            "ended": now.isoformat(timespec="milliseconds"),
            "how": type(error).__name__,
        }
        record = RunRecord(job.out / "runs" / run_id, facts)
    record.facts["message"] = str(error)
    if not isinstance(error, LockedError):
        with contextlib.suppress(OSError):  # a full disk may be why the run failed
            record.save()
            remove_old_runs(job.out, job.name, runs=job.retention.runs, shard=record.shard)
    return record


def _notify(job: JobFile, record: RunRecord, *, failed: bool) -> str:
    """Sends the notification that the job asks for; returns what went wrong. Media that failed in an earlier run are no new failure."""
    notification = job.notification
    if notification is None or notification.when == "never" or (notification.when == "failure" and not failed):
        return ""
    problem = notify(notification, record.facts, folder=job.file.parent)
    with contextlib.suppress(OSError):
        if record.folder.is_dir():
            record.log("notified", problem=problem)
    return problem
