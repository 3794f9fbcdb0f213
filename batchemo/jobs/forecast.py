"""What a job would do if it ran now, and how long that may take by what it took before."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

from batchemo.jobs.file import JobFile
from batchemo.jobs.history import RunRecord, read_run_records
from batchemo.jobs.schedule import calendar_problem
from batchemo.media.identity import is_same_file
from batchemo.records import MediaRow, Medium
from batchemo.results.catalog import read_catalog_entry
from batchemo.run.plan import plan_run

_RUNS = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Forecast:
    """Names of media by what would become of them. `again`: their content is the same, but options, weights or lost files ask for it;
    `retried` failed before; of those `redrawn` only the annotated copies are made again. Those that are `done` or
    `failed_before` are left alone; of those that have `vanished` results are there.

    `seconds` of analysis are None where no past run tells; otherwise they are from the speed of `runs` runs. What is only redrawn is not
    among them. `problems` are those of the file that would only show at night.
    """

    new: tuple[str, ...]
    changed: tuple[str, ...]
    again: tuple[str, ...]
    retried: tuple[str, ...]
    redrawn: tuple[str, ...]
    failed_before: tuple[str, ...]
    done: tuple[str, ...]
    vanished: tuple[str, ...]
    seconds: float | None
    runs: int
    problems: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def forecast(job: JobFile) -> Forecast:
    """Raises UsageError or WeightsError as a run would; writes nothing."""
    planned = plan_run(job.inputs, job.out, job.options)
    sorted_in: dict[str, list[str]] = {name: [] for name in ("new", "changed", "again", "retried", "redrawn")}
    for medium in planned.todo:
        sorted_in["redrawn" if medium.name in planned.redrawn else _reason(job, medium)].append(medium.name)
    accounts = [account for account in read_run_records(job.out, job.name) if _tells_speed(account)][-_RUNS:]
    analysed = [medium for medium in planned.todo if medium.name not in planned.redrawn]
    return Forecast(
        **{name: tuple(found) for name, found in sorted_in.items()},
        failed_before=_names(row for row in planned.done if row.status == "failed"),
        done=_names(row for row in planned.done if row.status == "done"),
        vanished=_names(planned.vanished),
        seconds=_seconds(analysed, [account.facts["figures"] for account in accounts]),
        runs=len(accounts),
        problems=tuple(_problems(job)),
    )


def _names(rows: Iterable[MediaRow]) -> tuple[str, ...]:
    return tuple(row.media for row in rows)


def _reason(job: JobFile, medium: Medium) -> str:
    entry = read_catalog_entry(job.out, medium.output)
    if entry is None:
        return "new"
    if not is_same_file(medium.path, entry.metadata.get("fingerprint", {})):
        return "changed"
    return "retried" if entry.row.status == "failed" and job.options.retry_failed else "again"


def _tells_speed(account: RunRecord) -> bool:
    """Nights that drew as well tell no speed of analysis: their time is that of both."""
    analysed = account.facts.get("figures", {}).get("media", 0) > 0
    return account.facts.get("how") == "done" and analysed and not account.facts.get("media", {}).get("redrawn", 0)


def _seconds(media: Sequence[Medium], figures: Sequence[dict[str, Any]]) -> float | None:
    """Time goes by bytes, for each kind of medium its own; and by how many processes shared it."""
    if not media:
        return 0.0
    work = 0.0
    for kind in {medium.kind for medium in media}:
        known = [each["work"][kind] for each in figures]
        size = sum(part["bytes"] for part in known)
        if not size:
            return None
        todo = sum(medium.path.stat().st_size for medium in media if medium.kind == kind and medium.path.exists())
        work += todo * sum(part["seconds"] for part in known) / size
    worked = sum(part["seconds"] for each in figures for part in each["work"].values())
    return work * sum(each["seconds"] for each in figures) / worked if worked else None


def _problems(job: JobFile) -> list[str]:
    found = []
    if job.notification is not None and shutil.which(job.notification.command[0]) is None:
        found.append(f"notification.command: {job.notification.command[0]} is no program that can be started")
    if job.schedule is not None:
        found += [f"schedule.on_calendar: {problem}" for event in job.schedule.calendar_events() if (problem := calendar_problem(event))]
    if job.retention.runs <= 5:
        found.append(f"retention.runs = {job.retention.runs}: nights are compared with five earlier ones at least; keep 6 or more")
    return found
