"""Prints the results of `batchemo jobs`: forecasts, job runs and status."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from batchemo.cli.messages import MAX_LINES, escape_markup, line_console, table_console
from batchemo.errors import typed
from batchemo.jobs.file import JobFile
from batchemo.jobs.forecast import Forecast
from batchemo.jobs.history import RunRecord
from batchemo.jobs.job_run import JobRun
from batchemo.jobs.status import Status
from batchemo.run.run import RunResult


def print_forecast(job: JobFile, found: Forecast) -> None:
    """Prints on stdout what the job would do."""
    console = line_console()
    todo = {"new": found.new, "changed": found.changed, "again": found.again, "failed before": found.retried}
    for line in (*_planned_lines(job, found), _total_line(job, found, todo), *_duration_lines(found, any(todo.values()))):
        console.print(line)
    for problem in found.problems:
        console.print(f"[yellow]{escape_markup(problem)}[/yellow]")


def _planned_lines(job: JobFile, found: Forecast) -> Iterable[str]:
    meanings = {
        "new": found.new,
        "changed": found.changed,
        "again": found.again,
        "drawn again": found.redrawn,
        "failed before, to be tried again": found.retried,
        "failed before, left alone (options.retry_failed)": found.failed_before,
        "vanished, its results are removed" if job.options.prune else "vanished, its results are kept (options.prune)": found.vanished,
    }
    for meaning, names in meanings.items():
        for name in names[:MAX_LINES]:
            yield f"[cyan]{meaning}[/cyan]  {escape_markup(name)}"
        if len(names) > MAX_LINES:
            yield f"[cyan]{meaning}[/cyan]  and {len(names) - MAX_LINES} more"


def _total_line(job: JobFile, found: Forecast, todo: Mapping[str, Sequence[str]]) -> str:
    parts = ", ".join(f"{len(names)} {word}" for word, names in todo.items() if names)
    media = f"{sum(map(len, todo.values()))} media{f' ({parts})' if parts else ''}"
    redrawn = f"{len(found.redrawn)} would be drawn again, " if found.redrawn else ""
    failed = f", {len(found.failed_before)} failed before" if found.failed_before else ""
    into = escape_markup(str(job.out))
    return f"[bold]{escape(job.name)}[/bold] would analyse {media} into {into}; {redrawn}{len(found.done)} are done{failed}."


def _duration_lines(found: Forecast, is_something_to_do: bool) -> Iterable[str]:
    if not is_something_to_do:
        return
    if found.seconds is None:
        yield "The duration is not known: no earlier run of this job had media like these."
        return
    # A start takes some seconds, however short the media are.
    duration = "less than a minute" if found.seconds < 30 else _duration(found.seconds)
    more = "; drawing again comes on top of that" if found.redrawn else ""
    yield f"That may take {duration}, by the speed of {_count(found.runs, 'earlier run')}{more}."


def print_job_run(job: JobFile, job_run: JobRun, *, program: str, file: str) -> None:
    """Prints on stderr what a job run did, and what was unusual."""
    console, result, figures = line_console(stderr=True), job_run.result, job_run.record.facts["figures"]
    failed = f", {figures['failed']} failed" if figures["failed"] else ""
    console.print(
        f"[bold]{escape(job.name)}[/bold]: {figures['media']} media analysed{failed}{_others(result)}, in {_duration(result.seconds)}. "
        f"{figures['faces']} faces in {figures['frames']} frames."
    )
    for line in _drift_lines(job_run.record):
        console.print(line)
    if job_run.notification_problem:
        console.print(f"[red]the notification failed[/red]: {escape_markup(job_run.notification_problem)}")
    if result.page is not None:
        console.print(f"A page to look at: {escape(result.page.resolve().as_uri())}")
    record = escape_markup(str(job_run.record.folder / "run.json"))
    console.print(f"Run record: {record}; earlier ones: {escape(f'{program} jobs status {file}')}")


def _others(result: RunResult) -> str:
    """Media that were not analysed in this run."""
    earlier = len(result.rows) - len(result.analysed) - len(result.redrawn)
    failed = sum(row.run_id != result.run_id for row in result.failed)
    counts = {
        "drawn again": len(result.redrawn),
        f"done before{f' ({failed} of them failed)' if failed else ''}": earlier,
        "vanished, and their results with them": len(result.pruned),
        "vanished, whose results are kept (options.prune)": len(result.vanished),
    }
    return "".join(f"; {count} {what}" for what, count in counts.items() if count)


def print_status(found: Status) -> None:
    """Prints the last runs and the next on stdout."""
    console = line_console()
    job = found.job
    console.print(f"[bold]{escape(job.name)}[/bold]  {escape_markup(str(job.file))} into {escape_markup(str(job.out))}")
    if found.runs:
        table = Table(box=None, pad_edge=False)
        for name in ("began", "took"):
            table.add_column(name)
        for name in ("media", "failed", "faces"):
            table.add_column(name, justify="right")
        table.add_column("status", overflow="fold")
        for record in found.runs:
            table.add_row(*_cells(record, is_running=found.is_running and record is found.runs[0]))
        table_console().print(table)
        for line in _drift_lines(found.runs[0]):
            console.print(line)
        for line in _stage_lines(found.runs[0]):
            console.print(line)
    else:
        console.print("no run yet")
    console.print(_due(found))


def _drift_lines(record: RunRecord) -> Iterable[str]:
    """Metrics of a run outside their usual range, or why there was no comparison."""
    drift = record.facts.get("drift", {})
    for finding in drift.get("findings", ()):
        yield f"[yellow]unusual[/yellow]  {escape_markup(finding['text'])}"
    if drift.get("note"):
        yield escape_markup(drift["note"][:1].upper() + drift["note"][1:]) + "."
    elif drift and not drift["findings"]:
        yield f"Nothing unusual, compared with {_count(drift['runs'], 'run')} before."


def _stage_lines(record: RunRecord) -> Iterable[str]:
    """The stages that took most of the time, where the run record has them."""
    stages: dict[str, float] = record.facts.get("seconds_by_stage") or {}
    total = sum(stages.values())
    if total:
        longest = sorted(stages.items(), key=lambda each: -each[1])
        yield (
            "Time went to "
            + ", ".join(f"{escape_markup(stage)} {seconds / total:.0%}" for stage, seconds in longest if seconds >= 0.005 * total)
            + "."
        )


def _cells(record: RunRecord, *, is_running: bool) -> list[str]:
    facts = record.facts
    figures = facts.get("figures", {})
    began = datetime.datetime.fromisoformat(facts["started"])
    if not record.has_ended:
        how = "running" if is_running else "[red]killed, or the machine went down[/red]"
    elif facts["how"] == "done":
        odd = len(facts.get("drift", {}).get("findings", ()))
        how = f"[yellow]done, {odd} unusual[/yellow]" if odd else "done"
    else:
        how = f"[red]{_HOW.get(facts['how'], facts['how'])}[/red] {escape_markup(facts.get('message', ''))}".rstrip()
    took = datetime.datetime.fromisoformat(facts["ended"]) - began if "ended" in facts else None
    shard = f" (shard {record.shard})" if record.shard else ""
    return [
        f"{began.astimezone():%a %d %b %H:%M}{shard}",
        _duration(took.total_seconds()) if took is not None else "",
        *(str(figures.get(name, "")) for name in ("media", "failed", "faces")),
        how,
    ]


_HOW = {
    "UsageError": "could not start:",
    "WeightsError": "could not start:",
    "DeviceError": "could not start:",
    "KeyboardInterrupt": "interrupted",
    "Terminated": "terminated",
    "StorageError": "could not write:",
}


def _due(found: Status) -> str:
    schedule = found.job.schedule
    if schedule is None:
        return "No schedule in the job file; it runs when a user or another scheduler starts it."
    when = f"Next: {found.due:%a %d %b %H:%M} ({escape(str(schedule))})" if found.due else f"Schedule: {escape(str(schedule))}"
    if not found.installed:
        hint = f"batchemo jobs install {typed(found.job.file)} --systemd (or --cron)"
        return f"{when}; but neither systemd nor cron of this user has it. To install it: {escape(hint)}"
    return f"{when}, by {escape_markup(', '.join(found.installed))}."


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
