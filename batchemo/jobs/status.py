"""The status of a job: its last runs, whether one is running, and when the next is due."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

from batchemo.errors import UsageError
from batchemo.jobs.crontab import installed_lines
from batchemo.jobs.file import JobFile
from batchemo.jobs.history import RunRecord, read_run_records
from batchemo.jobs.systemd import installed_units, user_folder
from batchemo.lock import is_held

_SHOWN_RUNS = 7


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """`runs` are the last ones, the newest first. `due` is local time, None where it is not known; `installed` names the schedulers
    that have the job, or says why that is not known."""

    job: JobFile
    runs: tuple[RunRecord, ...]
    is_running: bool
    due: datetime.datetime | None
    installed: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "job": self.job.name,
            "file": str(self.job.file),
            "out": str(self.job.out),
            "schedule": str(self.job.schedule or ""),
            "installed": list(self.installed),
            "next": self.due.astimezone().isoformat() if self.due else None,
            "running": self.is_running,
            "runs": [record.facts for record in self.runs],
        }


def read_status(job: JobFile) -> Status:
    records = read_run_records(job.out, job.name)
    return Status(
        job=job,
        runs=tuple(reversed(records[-_SHOWN_RUNS:])),
        is_running=is_held(job.out),
        due=job.schedule.next_after(datetime.datetime.now()) if job.schedule else None,
        installed=tuple(_installed(job)),
    )


def _installed(job: JobFile) -> list[str]:
    found = ["systemd"] if installed_units(job.file, folder=user_folder()) else []
    try:
        return [*found, "cron"] if installed_lines(job.file) else found
    except UsageError as error:
        return [*found, f"cron: {error}"]
