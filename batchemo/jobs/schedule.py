"""When a job is due, in the notations of systemd and of cron."""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _as_list(given: Any) -> Any:
    return [given] if isinstance(given, str | datetime.time) else given


def _as_time(given: Any) -> str:
    # TOML has times of its own: `at = 02:30:00`.
    text = given.strftime("%H:%M:%S").removesuffix(":00") if isinstance(given, datetime.time) else str(given)
    if not re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", text):
        raise ValueError(f"{text!r} is no time of day; write it as '02:30'")
    return text.zfill(5)


def _as_day(given: Any) -> str:
    text = str(given).lower()
    for day in DAYS:
        if len(text) >= 3 and _NAMES[day].startswith(text):
            return day
    raise ValueError(f"{given!r} is no day; choose from {', '.join(DAYS)}")


_NAMES = dict(zip(DAYS, ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"), strict=True))
_CRON_NICKNAMES = r"@(?:hourly|daily|midnight|weekly|monthly|yearly|annually|reboot)"
_CRON_FIELD = r"[0-9A-Za-z*/,-]+"


class Schedule(BaseModel):
    """`at` and `days` (none: every day), in local time, are translated into both notations. Schedules that these two cannot express are
    given as `on_calendar` (of systemd) or `cron` (five fields), or both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: Annotated[tuple[Annotated[str, BeforeValidator(_as_time)], ...], BeforeValidator(_as_list)] = ()
    days: Annotated[tuple[Annotated[str, BeforeValidator(_as_day)], ...], BeforeValidator(_as_list)] = ()
    on_calendar: Annotated[str, Field(pattern=r"^[0-9A-Za-z*:,./~_ +-]+$")] | None = None
    cron: Annotated[str, Field(pattern=rf"^({_CRON_NICKNAMES}|{_CRON_FIELD}(?: +{_CRON_FIELD}){{4}})$")] | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Schedule:
        raw = self.on_calendar is not None or self.cron is not None
        if self.at and raw:
            raise ValueError("give either 'at', or 'on_calendar' and 'cron'")
        if self.days and not self.at:
            raise ValueError("'days' needs 'at'")
        if not self.at and not raw:
            raise ValueError("needs 'at', such as '02:30', or 'on_calendar' or 'cron'")
        return self

    def calendar_events(self) -> list[str]:
        """Values of systemd's OnCalendar=; none where the schedule is given for cron alone."""
        if not self.at:
            return [self.on_calendar] if self.on_calendar else []
        days = ",".join(day.capitalize() for day in self._days()) + " " if self.days else ""
        return [f"{days}*-*-* {time}:00" for time in self._times()]

    def cron_times(self) -> list[str]:
        """The five fields of each crontab line; none where the schedule is given for systemd alone."""
        if not self.at:
            return [self.cron] if self.cron else []
        # Sunday is 0: not every cron takes 7, or names of days.
        days = ",".join(str((DAYS.index(day) + 1) % 7) for day in self._days()) if self.days else "*"
        return [f"{int(time[3:])} {int(time[:2])} * * {days}" for time in self._times()]

    def next_after(self, now: datetime.datetime) -> datetime.datetime | None:
        """The next local time after the local time `now`, both without a zone; None where it is given for cron alone, or systemd is
        not installed."""
        if not self.at:
            return _next_event(self.on_calendar) if self.on_calendar else None
        days = self._days() or DAYS
        for ahead in range(8):
            date = now.date() + datetime.timedelta(days=ahead)
            if DAYS[date.weekday()] not in days:
                continue
            for time in self._times():
                due = datetime.datetime.combine(date, datetime.time.fromisoformat(time))
                if due > now:
                    return due
        raise AssertionError("a week has every day")

    def __str__(self) -> str:
        if self.at:
            return f"{', '.join(self._times())} {'on ' + ', '.join(self._days()) if self.days else 'every day'}"
        return " and ".join(text for text in (self.on_calendar, self.cron and f"cron {self.cron}") if text)

    def _days(self) -> list[str]:
        return sorted(set(self.days), key=DAYS.index)

    def _times(self) -> list[str]:
        return sorted(set(self.at))


def calendar_problem(event: str) -> str:
    """Why systemd refuses a calendar event; empty where it takes it, or is not installed."""
    ended = _systemd_calendar(event)
    return ended.stderr.strip() if ended is not None and ended.returncode else ""


def _next_event(event: str) -> datetime.datetime | None:
    ended = _systemd_calendar(event)
    found = re.search(r"Next elapse: \w+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", ended.stdout) if ended is not None else None
    return datetime.datetime.fromisoformat(found[1]) if found else None


def _systemd_calendar(event: str) -> subprocess.CompletedProcess[str] | None:
    program = shutil.which("systemd-analyze")
    if program is None:
        return None
    return subprocess.run([program, "calendar", "--", event], capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
