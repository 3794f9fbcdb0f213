"""Forecasts what a job would do now, and how long it may take, by the speed of its earlier runs."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

from batchemo.jobs.file import JobFile
from batchemo.jobs.history import RunRecord, read_run_records
from batchemo.jobs.schedule import calendar_problem
from batchemo.media.file_identity import is_same_file
from batchemo.records import MediaRow, Medium
from batchemo.results.catalog import read_medium_results
from batchemo.run.plan import plan_run

_RUNS = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Forecast:
    """Names of media by what a run would do with them.

    - `new`, `changed`, `again` (unchanged, but options, weights or lost files need it) and `retried` (failed before) are analysed.
    - `redrawn`: only their annotated copies are made again.
    - `done` and `failed_before` are left alone; `vanished` media have results and are no longer there.

    `seconds` of analysis, without the redrawn media, follow from the speed of the last `runs` runs; None where none had such media.
    `problems` of the job file are those that stop or spoil a scheduled run.
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
        return dataclasses.asdict(self)


def forecast(job: JobFile) -> Forecast:
    """Raises UsageError or WeightsError as a run would; writes nothing."""
    planned = plan_run(job.inputs, job.out, job.options)
    sorted_in: dict[str, list[str]] = {name: [] for name in ("new", "changed", "again", "retried", "redrawn")}
    for medium in planned.todo:
        sorted_in["redrawn" if medium.name in planned.redrawn else _reason(job, medium)].append(medium.name)
    records = [record for record in read_run_records(job.out, job.name) if _has_speed(record)][-_RUNS:]
    analysed = [medium for medium in planned.todo if medium.name not in planned.redrawn]
    return Forecast(
        **{name: tuple(found) for name, found in sorted_in.items()},
        failed_before=_names(row for row in planned.done if row.status == "failed"),
        done=_names(row for row in planned.done if row.status == "done"),
        vanished=_names(planned.vanished),
        seconds=_seconds(analysed, [record.facts["figures"] for record in records]),
        runs=len(records),
        problems=tuple(_problems(job)),
    )


def _names(rows: Iterable[MediaRow]) -> tuple[str, ...]:
    return tuple(row.media for row in rows)


def _reason(job: JobFile, medium: Medium) -> str:
    entry = read_medium_results(job.out, medium.output)
    if entry is None:
        return "new"
    if not is_same_file(medium.path, entry.metadata.get("fingerprint", {})):
        return "changed"
    return "retried" if entry.row.status == "failed" and job.options.retry_failed else "again"


def _has_speed(record: RunRecord) -> bool:
    """Whether the time of the run went to analysis alone, and not to rendering copies again as well."""
    analysed = record.facts.get("figures", {}).get("media", 0) > 0
    return record.facts.get("how") == "done" and analysed and not record.facts.get("media", {}).get("redrawn", 0)


def _seconds(media: Sequence[Medium], figures: Sequence[dict[str, Any]]) -> float | None:
    """Process seconds by bytes, for each kind of medium; wall seconds by the share of both in earlier runs."""
    if not media:
        return 0.0
    work = 0.0
    for kind in {medium.kind for medium in media}:
        known = [each["work"][kind] for each in figures]
        size = sum(part["bytes"] for part in known)
        if not size:
            return None
        todo = sum(medium.size_bytes() for medium in media if medium.kind == kind)
        work += todo * sum(part["seconds"] for part in known) / size
    worked = sum(part["seconds"] for each in figures for part in each["work"].values())
    return work * sum(each["seconds"] for each in figures) / worked if worked else None


def _problems(job: JobFile) -> list[str]:
    found = []
    program = job.notification.command[0] if job.notification is not None else ""
    if program and shutil.which(program) is None:
        found.append(f"notification.command: {program} is no program that can be started; install it, or correct its path")
    if job.schedule is not None:
        found += [f"schedule.on_calendar: {problem}" for event in job.schedule.calendar_events() if (problem := calendar_problem(event))]
    if job.retention.runs <= 5:
        found.append(f"retention.runs = {job.retention.runs}: runs are compared with at least five earlier ones; keep 6 or more")
    return found
