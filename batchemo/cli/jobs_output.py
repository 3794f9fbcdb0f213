"""What people see of jobs in the terminal."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from batchemo.cli.messages import escape_markup
from batchemo.errors import typed
from batchemo.jobs.file import JobFile
from batchemo.jobs.forecast import Forecast
from batchemo.jobs.history import RunRecord
from batchemo.jobs.job_run import JobRun
from batchemo.jobs.status import Status

_MANY = 40
_NO_FOLDING = 100_000


def print_forecast(job: JobFile, found: Forecast) -> None:
    """What would be done, on stdout."""
    console = _console()
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
        for name in names[:_MANY]:
            console.print(f"[cyan]{meaning}[/cyan]  {escape_markup(name)}")
        if len(names) > _MANY:
            console.print(f"[cyan]{meaning}[/cyan]  and {len(names) - _MANY} more")
    todo = sum(map(len, (found.new, found.changed, found.again, found.retried)))
    counts = {"new": found.new, "changed": found.changed, "again": found.again, "failed before": found.retried}
    parts = ", ".join(f"{len(names)} {word}" for word, names in counts.items() if names)
    drawn = f"{len(found.redrawn)} would be drawn again, " if found.redrawn else ""
    into = escape_markup(str(job.out))
    console.print(
        f"[bold]{escape(job.name)}[/bold] would analyse {todo} media{f' ({parts})' if parts else ''} into {into}; {drawn}"
        f"{len(found.done)} are done{f', {len(found.failed_before)} failed before' if found.failed_before else ''}."
    )
    if todo and found.seconds is not None:
        # Starting takes some seconds, however little there is to do.
        long = "less than a minute" if found.seconds < 30 else _duration(found.seconds)
        more = "; drawing again comes on top of that" if found.redrawn else ""
        console.print(f"That may take {long}, by the speed of {_count(found.runs, 'earlier run')}{more}.")
    elif todo:
        console.print("How long that takes nobody knows: no earlier run of this job had media like these.")
    for problem in found.problems:
        console.print(f"[yellow]{escape_markup(problem)}[/yellow]")


def print_night(job: JobFile, night: JobRun, *, program: str, file: str) -> None:
    """The end of a run, on stderr."""
    console = _console(stderr=True)
    figures = night.account.facts["figures"]
    failed = f", {figures['failed']} failed" if figures["failed"] else ""
    redrawn = len(night.report.redrawn)
    earlier = len(night.report.rows) - len(night.report.analysed) - redrawn
    before = sum(row.run_id != night.report.run_id for row in night.report.failed)
    kept = f"; {redrawn} drawn again" if redrawn else ""
    kept += f"; {earlier} done before" if earlier else ""
    kept += f" ({before} of them failed)" if before else ""
    kept += f"; {len(night.report.pruned)} vanished, and their results with them" if night.report.pruned else ""
    kept += f"; {len(night.report.vanished)} vanished, whose results are kept (options.prune)" if night.report.vanished else ""
    console.print(
        f"[bold]{escape(job.name)}[/bold]: {figures['media']} media analysed{failed}{kept}, in {_duration(night.report.seconds)}. "
        f"{figures['faces']} faces in {figures['frames']} frames."
    )
    for line in drift_lines(night.account):
        console.print(line)
    if night.trouble:
        console.print(f"[red]nobody was told[/red]: {escape_markup(night.trouble)}")
    if night.report.page is not None:
        console.print(f"A page to look at: {escape(night.report.page.resolve().as_uri())}")
    console.print(
        f"The account: {escape_markup(str(night.account.folder / 'run.json'))}; earlier ones: {escape(f'{program} jobs status {file}')}"
    )


def print_status(found: Status) -> None:
    """The last runs and the next, on stdout."""
    console = _console()
    job = found.job
    console.print(f"[bold]{escape(job.name)}[/bold]  {escape_markup(str(job.file))} into {escape_markup(str(job.out))}")
    if found.runs:
        table = Table(box=None, pad_edge=False)
        for name in ("began", "took"):
            table.add_column(name)
        for name in ("media", "failed", "faces"):
            table.add_column(name, justify="right")
        table.add_column("how it went", overflow="fold")
        for account in found.runs:
            table.add_row(*_cells(account, is_running=found.is_running and account is found.runs[0]))
        console.print(table)
        for line in drift_lines(found.runs[0]):
            console.print(line)
        for line in _stage_lines(found.runs[0]):
            console.print(line)
    else:
        console.print("has never run")
    console.print(_due(found))


def drift_lines(account: RunRecord) -> Iterable[str]:
    """What moved in a run beyond its usual range, or why that is not known."""
    drift = account.facts.get("drift", {})
    for finding in drift.get("findings", ()):
        yield f"[yellow]unusual[/yellow]  {escape_markup(finding['text'])}"
    if drift.get("note"):
        yield escape_markup(drift["note"][:1].upper() + drift["note"][1:]) + "."
    elif drift and not drift["findings"]:
        yield f"Nothing unusual, compared with {_count(drift['runs'], 'run')} before."


def _stage_lines(account: RunRecord) -> Iterable[str]:
    """Where the time went, in accounts that say it."""
    stages: dict[str, float] = account.facts.get("seconds_by_stage") or {}
    total = sum(stages.values())
    if total:
        longest = sorted(stages.items(), key=lambda each: -each[1])
        yield (
            "Time went to "
            + ", ".join(f"{escape_markup(stage)} {seconds / total:.0%}" for stage, seconds in longest if seconds >= 0.005 * total)
            + "."
        )


def _cells(account: RunRecord, *, is_running: bool) -> list[str]:
    facts = account.facts
    figures = facts.get("figures", {})
    began = datetime.datetime.fromisoformat(facts["started"])
    if not account.has_ended:
        how = "goes on" if is_running else "[red]killed, or the machine went down[/red]"
    elif facts["how"] == "done":
        odd = len(facts.get("drift", {}).get("findings", ()))
        how = f"[yellow]done, {odd} unusual[/yellow]" if odd else "done"
    else:
        how = f"[red]{_HOW.get(facts['how'], facts['how'])}[/red] {escape_markup(facts.get('message', ''))}".rstrip()
    took = datetime.datetime.fromisoformat(facts["ended"]) - began if "ended" in facts else None
    shard = f" (shard {account.shard})" if account.shard else ""
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
        return "No schedule in its file; it runs when somebody, or another scheduler, starts it."
    when = f"Next: {found.due:%a %d %b %H:%M} ({escape(str(schedule))})" if found.due else f"Schedule: {escape(str(schedule))}"
    if not found.installed:
        hint = f"batchemo jobs install {typed(found.job.file)} --systemd (or --cron)"
        return f"{when}; but neither systemd nor cron of this user knows of it. To install it: {escape(hint)}"
    return f"{when}, by {escape_markup(', '.join(found.installed))}."


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, soft_wrap=True, width=_NO_FOLDING)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
