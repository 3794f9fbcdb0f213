"""Installs a job as lines of the user's crontab, between two marker comments, by which they are found and removed."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from batchemo.errors import UsageError
from batchemo.jobs.file import JobFile

_NO_CRONTAB = ("no crontab for", "no such file or directory")


def lines_of(job: JobFile, program: Sequence[str]) -> list[str]:
    """A line for each time of day, between the two marker comments.

    Raises UsageError where the job has no schedule for cron, or a path that no line of a crontab can hold.
    """
    times = job.schedule.cron_times() if job.schedule else []
    if not times:
        raise UsageError(f"{job.file}: no schedule for cron; add to [schedule]: at = '02:30', or cron = '30 2 * * 1-5'")
    begin, end = _markers(job.file)
    command = " ".join(quote_for_cron(each) for each in ("nice", *program, "jobs", "run", str(job.file), "--quiet"))
    return [begin, *(f"{time} {command}" for time in times), end]


def quote_for_cron(text: str) -> str:
    r"""Quotes one argument of a command in a crontab for the shell, and `%`, which ends a line there, as `\%`.

    `\%` stands outside of quotes, as some crons leave the backslash to the shell, and others remove it.
    """
    if not text.isprintable():
        raise UsageError(f"{text!r} has characters that no crontab can hold; rename it, or use --systemd")
    return "\\%".join(shlex.quote(part) if part else "" for part in text.split("%"))


def install_cron(job: JobFile, program: Sequence[str]) -> None:
    """Writes the job's lines to the crontab, in the place of earlier ones of the same file. Raises UsageError where that is refused."""
    before, _, after = _split(read_crontab(), job.file)
    _write([*before, *lines_of(job, program), *after])


def uninstall_cron(file: Path) -> list[str]:
    """Removes the lines of the job `file`, which need not exist any more, from the crontab; returns them."""
    if shutil.which("crontab") is None:
        return []
    before, ours, after = _split(read_crontab(), file.absolute())
    if ours:
        _write([*before, *after])
    return ours


def installed_lines(file: Path) -> list[str]:
    """The lines of the job `file` in the crontab."""
    return _split(read_crontab(), file.absolute())[1] if shutil.which("crontab") else []


def read_crontab() -> list[str]:
    """The lines of the user's crontab. Raises UsageError where it cannot be read."""
    ended = _crontab("-l")
    if ended.returncode == 0:
        text = os.fsdecode(ended.stdout)
        return text.removesuffix("\n").split("\n") if text else []
    message = os.fsdecode(ended.stderr).strip()
    if any(words in message.lower() for words in _NO_CRONTAB):
        return []
    # A new crontab would replace lines that we cannot see.
    raise UsageError(f"the crontab cannot be read ({message or 'crontab -l failed'}); look at it with: crontab -l")


def _split(lines: list[str], file: Path) -> tuple[list[str], list[str], list[str]]:
    begin, end = _markers(file)
    if begin not in lines:
        return lines, [], []
    start = lines.index(begin)
    if end not in lines[start:]:
        raise UsageError(f"the crontab has lost the line {end!r}; remove what is left of the job with: crontab -e")
    stop = lines.index(end, start) + 1
    return lines[:start], lines[start:stop], lines[stop:]


def _write(lines: list[str]) -> None:
    ended = _crontab("-", content="".join(f"{line}\n" for line in lines))
    if ended.returncode != 0:
        raise UsageError(f"crontab refused the lines: {os.fsdecode(ended.stderr).strip()}; the old crontab is still there")


def _crontab(argument: str, *, content: str = "") -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("crontab")
    if program is None:
        raise UsageError("there is no crontab on this machine; install cron, or use --systemd")
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run([program, argument], input=os.fsencode(content), capture_output=True, env=environment, timeout=60, check=False)  # noqa: S603


def _markers(file: Path) -> tuple[str, str]:
    name = json.dumps(str(file))
    return f"# batchemo job {name}: begin", f"# batchemo job {name}: end"
