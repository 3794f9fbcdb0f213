"""One run of a job: the analysis, its figures and drift, the old accounts removed, and whoever wants to know told."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from pathlib import Path

from batchemo.errors import LockedError
from batchemo.jobs.drift import find_drift
from batchemo.jobs.file import Job
from batchemo.jobs.history import Account, keep_last, read_account, read_accounts
from batchemo.jobs.metrics import figures_of
from batchemo.jobs.notification import notify
from batchemo.options import RunOptions, Shard
from batchemo.records import Medium
from batchemo.run.run import Plan, Report, Watch, new_run_id, run, write_page


@dataclasses.dataclass(frozen=True, slots=True)
class Night:
    """What became of a run of a job. `trouble` is what went wrong with the notification, or nothing."""

    report: Report
    account: Account
    trouble: str


def run_job(job: Job, watch: Watch, *, shard: Shard | None = None) -> Night:
    """Runs `job`, or the part of it that `shard` names, and completes its account by `figures` and `drift`.

    Raises what `batchemo.run.run` raises, after the account says so and whoever is to be told of failures has been: for a job that
    cannot start as well, unless another run holds the folder; that one keeps the account.
    """
    options = job.options if shard is None else job.options.model_copy(update={"shard": shard})
    seen = _Seen(watch)
    try:
        report = run(job.inputs, job.out, options, seen.watch, job=job.name)
        account = _completed(job, options, report, seen)
        page = write_page(job.out) if options.report else None
    except BaseException as error:
        account = _broken(job, options, seen.folder, error)
        _tell(job, account, failed=True)
        raise
    worked_on = {*report.analysed, *report.redrawn}
    left = any(row.media in worked_on for row in report.faces_left)
    failed = left or bool(account.facts["figures"]["failed"])
    return Night(dataclasses.replace(report, page=page), account, _tell(job, account, failed=failed))


class _Seen:
    """Looks over the shoulder of a run's watch: which media it takes, and where its account is."""

    def __init__(self, watch: Watch) -> None:
        self.media: tuple[Medium, ...] = ()
        self.folder: Path | None = None
        self._told = watch
        self.watch = Watch(started=self._started, finished=watch.finished)

    def _started(self, planned: Plan, pulses: Path) -> None:
        self.media, self.folder = planned.todo, pulses.parent
        self._told.started(planned, pulses)


def _completed(job: Job, options: RunOptions, report: Report, seen: _Seen) -> Account:
    account = read_account(job.out / "runs" / report.run_id)
    if account is None:
        raise OSError(f"{job.out / 'runs' / report.run_id / 'run.json'} has vanished")
    rows = {row.media: row for row in report.rows if row.run_id == report.run_id}
    account.facts["figures"] = figures_of(job.out, seen.media, rows, seconds=report.seconds)
    account.facts["drift"] = find_drift(account.facts, read_accounts(job.out, job.name)).as_dict()
    account.save()
    keep_last(job.out, job.name, runs=job.retention.runs, shard=str(options.shard or ""))
    return account


def _broken(job: Job, options: RunOptions, folder: Path | None, error: BaseException) -> Account:
    """The account of a run that did not end well, and one for a run that never began."""
    account = read_account(folder) if folder is not None else None
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
        account = Account(job.out / "runs" / run_id, facts)
    account.facts["message"] = str(error)
    if not isinstance(error, LockedError):
        with contextlib.suppress(OSError):  # perhaps that is why
            account.save()
            keep_last(job.out, job.name, runs=job.retention.runs, shard=account.shard)
    return account


def _tell(job: Job, account: Account, *, failed: bool) -> str:
    """Media that had failed in an earlier run are in the account, but nobody is told of them every night."""
    wanted = job.notification
    if wanted is None or wanted.when == "never" or (wanted.when == "failure" and not failed):
        return ""
    trouble = notify(wanted, account.facts, folder=job.file.parent)
    with contextlib.suppress(OSError):
        if account.folder.is_dir():
            account.log("notified", problem=trouble)
    return trouble
