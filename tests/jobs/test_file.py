"""Job files: errors in one line, before anything starts; and schedules in three notations."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from batchemo.errors import UsageError
from batchemo.jobs.file import JobFile, read_job
from batchemo.jobs.schedule import Schedule
from batchemo.options import Shard


def job(folder: Path, text: str, *, name: str = "nightly.toml") -> JobFile:
    file = folder / name
    if not text.startswith("inputs"):
        text = f'inputs = ["videos"]\nout = "results"\n{text}'
    file.write_text(text)
    return read_job(file)


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/user")
    text = """inputs = ["videos", "/archive", "~/more"]
out = "../results"
[options]
weights = "mine.safetensors"
sample-fps = 5
shard = "2/4"
[notification]
command = ["./notify.sh", "me"]
"""
    (tmp_path / "sub").mkdir()
    found = job(tmp_path / "sub", text)
    here = tmp_path / "sub"
    assert found.inputs == (here / "videos", Path("/archive"), Path("/home/user/more"))
    assert found.out == tmp_path / "results"
    assert (found.options.weights, found.options.sample_fps, found.options.shard) == (here / "mine.safetensors", 5, Shard(2, 4))
    assert found.notification is not None
    assert found.notification.command == (str(here / "notify.sh"), "me")
    assert (found.notification.when, found.notification.timeout_seconds) == ("failure", 30)


def test_only_the_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "batchemo.toml").write_text("workers = 7")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCHEMO_WORKERS", "3")
    found = job(tmp_path, "[options]\nbatch_size = 8")
    assert (found.options.workers, found.options.batch_size) == (None, 8)
    assert found.retention.runs > 5, "runs can be compared"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ouput = 3", "unknown key 'ouput'; did you mean 'out'?"),
        ("[shedule]\nat = '02:30'", "unknown key 'shedule'; did you mean 'schedule'?"),
        ("[schedule]\nat = '02:30'\ndasy = ['mon']", "unknown key 'schedule.dasy'; did you mean 'days'?"),
        ("[retention]\ndays = 3", "unknown key 'retention.days'; choose from runs"),
        ("[notification]\ncommand = ['x']\ntimeout = 3", "did you mean 'timeout_seconds'?"),
        ("[options]\nsampel_fps = 3", "unknown option 'sampel_fps'; did you mean 'sample_fps'?"),
        ("sample_fps = 3", "unknown key 'sample_fps'; it is an option; move it below [options]"),
        ("options = 3", "write [options]"),
        ("[options]\nsample_fps = -1", "--sample-fps -1 "),
        ("[options]\nshard = '0/3'", "must be part I of N"),
        ("[options]\ndry_run = true", "jobs check"),
        ("[retention]\nruns = 0", "retention.runs = 0: input should be greater than or equal to 1"),
        ("[notification]\nwhen = 'always'", "notification.command is missing"),
        ("[notification]\ncommand = []", "notification.command"),
        ("[notification]\ncommand = ['x']\nwhen = 'failed'", "'failure', 'always' or 'never'"),
        ("[schedule]\nat = '25:00'", "'25:00' is no time of day; write it as '02:30'"),
        ("[schedule]\nat = 02:30:15", "'02:30:15' is no time of day"),
        ("[schedule]\nat = '02:30'\ndays = ['someday']", "'someday' is no day; choose from mon, tue"),
        ("[schedule]\ndays = ['mon']", "'days' needs 'at'"),
        ("[schedule]", "needs 'at'"),
        ("[schedule]\nat = '02:30'\ncron = '* * * * *'", "give either"),
        ("[schedule]\ncron = '30 2 * *'", "is not the five fields"),
        ("[schedule]\ncron = \"0 2 * * *\\n* * * * * evil\"", "is not the five fields"),
        ("[schedule]\non_calendar = \"daily\\nExecStart=evil\"", "is no calendar event"),
        ("name = 'a/b'", "must be letters, digits"),
        ("inputs = []\nout = 'x'", "inputs"),
        ("inputs = 'videos'", "out is missing"),
        ("inputs = = 3", "not TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_a_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        job(tmp_path, text)
    message = str(caught.value)
    assert words in message
    assert "nightly.toml" in message
    assert "\n" not in message


def test_earlier_names_of_options_still_work(tmp_path: Path) -> None:
    options = job(tmp_path, "[options]\ntimeout = 5\nmax-memory = 300\nwait-s = 7").options
    assert (options.timeout_s, options.max_memory_mb, options.wait_s) == (5.0, 300, 7.0)
    with pytest.raises(UsageError, match=r"nightly.toml: timeout 5 and timeout-s 6 are the same option; give timeout_s alone"):
        job(tmp_path, "[options]\ntimeout = 5\ntimeout-s = 6")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml: cannot read the job"):
        read_job(tmp_path / "none.toml")


def test_names_are_those_of_units(tmp_path: Path) -> None:
    assert job(tmp_path, "", name="every night!.toml").name == "every-night"
    assert job(tmp_path, "name = 'study-7'").name == "study-7"
    with pytest.raises(UsageError, match="gives no name for the job"):
        job(tmp_path, "", name="夜.toml")


@pytest.mark.parametrize(
    ("given", "calendar", "cron"),
    [
        ({"at": "02:30"}, ["*-*-* 02:30:00"], ["30 2 * * *"]),
        ({"at": "2:05"}, ["*-*-* 02:05:00"], ["5 2 * * *"]),
        ({"at": datetime.time(23, 0)}, ["*-*-* 23:00:00"], ["0 23 * * *"]),
        ({"at": ["14:00", "02:30"]}, ["*-*-* 02:30:00", "*-*-* 14:00:00"], ["30 2 * * *", "0 14 * * *"]),
        ({"at": "02:30", "days": ["Sunday", "mon", "Tues"]}, ["Mon,Tue,Sun *-*-* 02:30:00"], ["30 2 * * 1,2,0"]),
        ({"on_calendar": "Mon..Fri 02:30"}, ["Mon..Fri 02:30"], []),
        ({"cron": "*/30 2 * * 1-5"}, [], ["*/30 2 * * 1-5"]),
        ({"cron": "@daily", "on_calendar": "daily"}, ["daily"], ["@daily"]),
    ],
)
def test_a_schedule_in_both_notations(given: dict[str, object], calendar: list[str], cron: list[str]) -> None:
    schedule = Schedule.model_validate(given)
    assert schedule.calendar_events() == calendar
    assert schedule.cron_times() == cron


@pytest.mark.parametrize(
    ("given", "now", "due"),
    [
        ({"at": "02:30"}, "2026-11-24 02:29:59", "2026-11-24 02:30:00"),
        ({"at": "02:30"}, "2026-11-24 02:30:00", "2026-11-25 02:30:00"),
        ({"at": ["02:30", "14:00"]}, "2026-12-31 15:00:00", "2027-01-01 02:30:00"),
        ({"at": "02:30", "days": ["tue"]}, "2026-11-24 03:00:00", "2026-12-01 02:30:00"),  # a Tuesday
        ({"cron": "0 2 * * *"}, "2026-11-24 03:00:00", None),
    ],
)
def test_when_it_is_due_next(given: dict[str, object], now: str, due: str | None) -> None:
    found = Schedule.model_validate(given).next_after(datetime.datetime.fromisoformat(now))
    assert str(found) == str(due)


@pytest.mark.needs("systemd-analyze")
def test_systemd_is_asked_about_its_own_words() -> None:
    from batchemo.jobs.schedule import calendar_problem

    assert calendar_problem("Mon..Fri *-*-* 02/4:30") == ""
    assert "Someday" in calendar_problem("Someday 02:30")
    now = datetime.datetime.now()
    due = Schedule(on_calendar="*-*-* 04:15:00").next_after(now)
    assert due is not None
    assert (due.hour, due.minute) == (4, 15)
    assert now < due < now + datetime.timedelta(days=2)
    for event in Schedule(at=("02:30", "14:00"), days=("mon", "sun")).calendar_events():
        assert calendar_problem(event) == ""
