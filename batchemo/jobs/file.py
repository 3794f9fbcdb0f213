"""The job file: inputs, results folder, options, schedule, retention and notification, checked before anything starts."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from batchemo.errors import UsageError, suggestion, typed
from batchemo.jobs.schedule import Schedule
from batchemo.options import RunOptions, named_options, option_name, validate_options

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}"
"""Names that systemd takes for units, without characters that are special to it or to a shell."""

_STRICT = ConfigDict(frozen=True, extra="forbid")


class Retention(BaseModel):
    """`runs`: the number of run records (`runs/<id>`) that are kept. Results are not touched."""

    model_config = _STRICT

    runs: Annotated[int, Field(ge=1)] = 60


class Notification(BaseModel):
    """`command`, a program and its arguments, gets run.json on stdin: when a run or a medium failed, always, or never."""

    model_config = _STRICT

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    when: Literal["failure", "always", "never"] = "failure"
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0


class _Table(BaseModel):
    """The keys of the file, except [options], whose keys are the options of `batchemo run`."""

    model_config = _STRICT

    name: Annotated[str, Field(pattern=rf"^{_NAME}$")] | None = None
    inputs: Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(lambda given: [given] if isinstance(given, str) else given)]
    out: str
    schedule: Schedule | None = None
    retention: Retention = Retention()
    notification: Notification | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class JobFile:
    """A checked job file; paths are absolute. Runs of one `name` in one results folder are compared with each other."""

    file: Path
    name: str
    inputs: tuple[Path, ...]
    out: Path
    options: RunOptions
    schedule: Schedule | None
    retention: Retention
    notification: Notification | None


def read_job(file: Path) -> JobFile:
    """Reads and checks `file`. Paths in it are relative to it, and `~` is the home folder.

    Options that it does not name have their defaults: neither the environment nor ./batchemo.toml changes what a job does. Raises
    UsageError that names the key, what is wrong with it, and what it may be.
    """
    table = _read_toml(file)
    given = table.pop("options", {})
    if not isinstance(given, dict):
        raise UsageError(f"{file}: 'options' must be a table; write [options] and its keys below")
    values = named_options(given, file=file)
    options = validate_options(values, dict.fromkeys(values, str(file)))
    if options.dry_run:
        raise UsageError(f"{file}: options.dry_run is for `batchemo run`; to see what a job would do: batchemo jobs check {typed(file)}")
    try:
        found = _Table.model_validate(table)
    except ValidationError as error:
        raise UsageError(f"{file}: {_problem(error.errors()[0])}") from error
    here = file.absolute().parent
    return JobFile(
        file=file.absolute(),
        name=found.name or _name_of(file),
        inputs=tuple(here / Path(path).expanduser() for path in found.inputs),
        out=(here / Path(found.out).expanduser()).resolve(),
        options=options,
        schedule=found.schedule,
        retention=found.retention,
        notification=_with_program(found.notification, here),
    )


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: cannot read the job ({error.strerror}); begin with a copy of jobs/nightly.toml") from error
    except ValueError as error:
        raise UsageError(f"{file}: not TOML ({error}); compare it with jobs/nightly.toml") from error


def _name_of(file: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", file.stem).strip("-._")[:80]
    if not name:
        raise UsageError(f"{file}: the name of the file gives no name for the job; add for example: name = 'nightly'")
    return name


def _with_program(notification: Notification | None, here: Path) -> Notification | None:
    """A path of a program is relative to the job file; a bare name is looked up in PATH when it is started."""
    if notification is None or "/" not in notification.command[0]:
        return notification
    program, *arguments = notification.command
    return notification.model_copy(update={"command": (str(here / Path(program).expanduser()), *arguments)})


_TABLES: dict[str, type[BaseModel]] = {"schedule": Schedule, "retention": Retention, "notification": Notification}


def _problem(error: ErrorDetails) -> str:
    """One line: the key, and what is wrong with it."""
    place = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return _unknown([str(part) for part in error["loc"]])
    if error["type"] == "missing":
        return f"{place} is missing; jobs/nightly.toml has every key"
    if error["type"] == "value_error":
        return f"{place}: {error['ctx']['error']}"
    if error["type"] == "string_pattern_mismatch":
        return f"{place}: {error['input']!r} {_PATTERN_HINTS.get(place, 'is not written as it must be')}"
    return f"{place} = {error['input']!r}: {error['msg'][:1].lower()}{error['msg'][1:]}"


_PATTERN_HINTS = {
    "name": "must be letters, digits, and . _ - between them",
    "schedule.cron": "is not the five fields of a crontab, such as '30 2 * * 1-5'",
    "schedule.on_calendar": "is no calendar event of systemd, such as 'Mon..Fri 02:30'",
}


def _unknown(place: list[str]) -> str:
    *tables, key = place
    known = [*(_TABLES[tables[0]] if tables else _Table).model_fields, *([] if tables else ["options"])]
    name = key.replace("-", "_")
    is_option = not tables and option_name(key) is not None
    hint = "it is an option; move it below [options]" if is_option else suggestion(name, known)
    return f"unknown key {'.'.join(place)!r}; {hint}"
