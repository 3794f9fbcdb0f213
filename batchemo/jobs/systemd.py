"""Installs a job as a service and a timer of systemd, finds them again, and removes them."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from batchemo.atomic import write_text
from batchemo.errors import UsageError
from batchemo.jobs.file import JobFile

_MARK = "X-BatchemoJob="
"""systemd ignores keys that begin with X-; this one holds the job file that a unit was made from."""


def user_folder() -> Path:
    """The folder of this user's units."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def units_of(job: JobFile, program: Sequence[str]) -> dict[str, str]:
    """The texts of the job's two units by their names. `program` is the absolute path of batchemo, and arguments that precede ours.

    Raises UsageError where the job has no schedule for systemd.
    """
    events = job.schedule.calendar_events() if job.schedule else []
    if not events:
        raise UsageError(f"{job.file}: no schedule for systemd; add to [schedule]: at = '02:30', or on_calendar = 'Mon..Fri 02:30'")
    # The colon keeps systemd from expanding $VARIABLES in the arguments.
    command = (
        ":" + _executable(program[0]) + "".join(f" {quote_for_systemd(each)}" for each in (*program[1:], "jobs", "run", str(job.file)))
    )
    service = f"""[Unit]
Description=batchemo job {_literal(job.name)}
{_MARK}{_marked(job.file)}

[Service]
Type=oneshot
ExecStart={command}
Nice=10
KillMode=mixed
"""
    timer = f"""[Unit]
Description=batchemo job {_literal(job.name)}, when it is due
{_MARK}{_marked(job.file)}

[Timer]
{"".join(f"OnCalendar={event}{chr(10)}" for event in events)}Persistent=true

[Install]
WantedBy=timers.target
"""
    return {f"{unit_name(job)}.service": service, f"{unit_name(job)}.timer": timer}


def unit_name(job: JobFile) -> str:
    """The name of the job's units, without the suffix."""
    return f"batchemo-{job.name}"


def write_units(job: JobFile, program: Sequence[str], *, folder: Path) -> list[Path]:
    """Writes the units into `folder`. Raises UsageError where units of another file have their names, or nothing can be written."""
    units = units_of(job, program)
    for name in units:
        path = folder / name
        if path.exists() and _mark_in(path) != _marked(job.file):
            raise UsageError(f"{path} is of another job; give this job another name in {job.file}: name = '...'")
    try:
        for name, text in units.items():
            write_text(folder / name, text)
    except OSError as error:
        raise UsageError(f"{folder}: cannot write there ({error.strerror}); give another folder with --folder") from error
    return [folder / name for name in units]


def installed_units(file: Path, *, folder: Path) -> list[Path]:
    """The units in `folder` that were made from the job `file`, which need not exist any more; timers first."""
    found = [path for suffix in ("timer", "service") for path in sorted(folder.glob(f"batchemo-*.{suffix}"))]
    return [path for path in found if _mark_in(path) == _marked(file.absolute())]


def remove_units(file: Path, *, folder: Path) -> list[Path]:
    """Stops and removes the units of the job `file` in `folder`; returns their paths."""
    units = installed_units(file, folder=folder)
    if units and folder == user_folder():
        for path in units:
            if path.suffix == ".timer":
                _systemctl("disable", "--now", path.name)
    for path in units:
        path.unlink()
    if units and folder == user_folder():
        _systemctl("daemon-reload")
    return units


def enable(job: JobFile, *, folder: Path) -> list[str]:
    """Enables the timer, if `folder` is the user's own. Returns the commands that the user must still type."""
    timer = f"{unit_name(job)}.timer"
    if folder != user_folder():
        return ["systemctl daemon-reload", f"systemctl enable --now {shlex.quote(timer)}"]
    if _systemctl("daemon-reload") and _systemctl("enable", "--now", timer):
        return []
    return ["systemctl --user daemon-reload", f"systemctl --user enable --now {shlex.quote(timer)}"]


def quote_for_systemd(text: str) -> str:
    """Quotes one argument of a command in a unit. See systemd.service(5), COMMAND LINES, and systemd.syntax(7)."""
    return '"' + _literal("".join(_escaped(character) for character in text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def _literal(text: str) -> str:
    return text.replace("%", "%%")


def _executable(program: str) -> str:
    if any(character in "\"'\\" or not character.isprintable() for character in program):
        raise UsageError(
            f"{program!r}: systemd starts no program with quotes or backslashes in its path; install batchemo elsewhere, or use --cron"
        )
    return quote_for_systemd(program)


def _marked(file: Path) -> str:
    return json.dumps(str(file))


def _mark_in(path: Path) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(_MARK):
                return line.removeprefix(_MARK)
    return None


def _systemctl(*arguments: str) -> bool:
    """Whether systemctl succeeded. Containers and sudo have no systemd of the user."""
    program = shutil.which("systemctl")
    if program is None:
        return False
    try:
        ended = subprocess.run([program, "--user", *arguments], capture_output=True, timeout=60, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return False
    return ended.returncode == 0
