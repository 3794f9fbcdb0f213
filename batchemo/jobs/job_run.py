"""One run of a job: the analysis, its figures and drift, the old accounts removed, and whoever wants to know told."""

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
    """What became of a run of a job. `trouble` is what went wrong with the notification, or nothing."""

    report: RunResult
    account: RunRecord
    trouble: str


def run_job(job: JobFile, watch: RunCallbacks, *, shard: Shard | None = None) -> JobRun:
    """Runs `job`, or the part of it that `shard` names, and completes its account by `figures` and `drift`.

    Raises what `batchemo.run.run` raises, after the account says so and whoever is to be told of failures has been: for a job that
    cannot start as well, unless another run holds the folder; that one keeps the account.
    """
    options = job.options if shard is None else job.options.model_copy(update={"shard": shard})
    seen = _Seen(watch)
    try:
        report = run_media(job.inputs, job.out, options, seen.watch, job=job.name)
        account = _completed(job, options, report, seen)
        page = write_page(job.out) if options.report else None
    except BaseException as error:
        account = _broken(job, options, seen.folder, error)
        _tell(job, account, failed=True)
        raise
    worked_on = {*report.analysed, *report.redrawn}
    left = any(row.media in worked_on for row in report.faces_left)
    failed = left or bool(account.facts["figures"]["failed"])
    return JobRun(dataclasses.replace(report, page=page), account, _tell(job, account, failed=failed))


class _Seen:
    """Looks over the shoulder of a run's watch: which media it takes, and where its account is."""

    def __init__(self, watch: RunCallbacks) -> None:
        self.media: tuple[Medium, ...] = ()
        self.folder: Path | None = None
        self._told = watch
        self.watch = RunCallbacks(started=self._started, finished=watch.finished)

    def _started(self, planned: RunPlan, pulses: Path) -> None:
        self.media, self.folder = planned.todo, pulses.parent
        self._told.started(planned, pulses)


def _completed(job: JobFile, options: RunOptions, report: RunResult, seen: _Seen) -> RunRecord:
    account = read_run_record(job.out / "runs" / report.run_id)
    if account is None:
        raise OSError(f"{job.out / 'runs' / report.run_id / 'run.json'} has vanished")
    rows = {row.media: row for row in report.rows if row.run_id == report.run_id}
    account.facts["figures"] = run_metrics(job.out, seen.media, rows, seconds=report.seconds)
    account.facts["drift"] = find_drift(account.facts, read_run_records(job.out, job.name)).as_dict()
    account.save()
    remove_old_runs(job.out, job.name, runs=job.retention.runs, shard=str(options.shard or ""))
    return account


def _broken(job: JobFile, options: RunOptions, folder: Path | None, error: BaseException) -> RunRecord:
    """The account of a run that did not end well, and one for a run that never began."""
    account = read_run_record(folder) if folder is not None else None
    if account is None:
        now = datetime.datetime.now(datetime.UTC)
        run_id = new_run_id()
        facts = {
            "run_id": run_id,
            "job": job.name,
            "started": now.isoformat(timespec="milliseconds"),
            "inputs": [str(path) for path in job.inputs],
            "options": options.model_dump(mode="json"),
            "ended": now.isoformat(timespec="milliseconds"),
            "how": type(error).__name__,
        }
        account = RunRecord(job.out / "runs" / run_id, facts)
    account.facts["message"] = str(error)
    if not isinstance(error, LockedError):
        with contextlib.suppress(OSError):  # perhaps that is why
            account.save()
            remove_old_runs(job.out, job.name, runs=job.retention.runs, shard=account.shard)
    return account


def _tell(job: JobFile, account: RunRecord, *, failed: bool) -> str:
    """Media that had failed in an earlier run are in the account, but nobody is told of them every night."""
    wanted = job.notification
    if wanted is None or wanted.when == "never" or (wanted.when == "failure" and not failed):
        return ""
    trouble = notify(wanted, account.facts, folder=job.file.parent)
    with contextlib.suppress(OSError):
        if account.folder.is_dir():
            account.log("notified", problem=trouble)
    return trouble
