"""Job runs from the job file to the run record: a week of them, failures, notifications, retention, installation."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import shlex
import stat
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from batchemo.cli.main import main_app
from batchemo.jobs.file import Notification
from batchemo.jobs.history import read_run_records
from batchemo.jobs.notification import notify
from batchemo.jobs.systemd import quote_for_systemd as quoted_for_systemd
from tests.jobs.test_templates import parse, verify
from tests.made_media import read_pixels

SAMPLES = Path(__file__).parents[2] / "sample_media"
NOTIFIER = "import json, pathlib, sys\npathlib.Path('notified').open('a').write(json.dumps(json.load(sys.stdin)) + '\\n')\n"


def jobs(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main_app, ["jobs", *map(str, arguments)], env={"COLUMNS": "200"})


class Study:
    """A folder that pictures come into, and a job for it. Every picture has a face, about a third of them a smiling one."""

    def __init__(self, folder: Path, *, more: str = "") -> None:
        self.media = folder / "media"
        self.media.mkdir(parents=True)
        self.out = folder / "results"
        self.file = folder / "nightly.toml"
        (folder / "notify.py").write_text(NOTIFIER)
        self.file.write_text(
            f"""inputs = ["media"]
out = "results"
{more}
[options]
workers = 1
annotate = false
[schedule]
at = "02:30"
[notification]
command = [{json.dumps(sys.executable)}, "notify.py"]
"""
        )
        self._chance = random.Random(1)
        faces = [read_pixels(SAMPLES / name) for name in ("eileen_collins.jpg", "grace_hopper.jpg", "grace_hopper.jpg")]
        self._faces = [cv2.resize(face, (160, 160 * face.shape[0] // face.shape[1])) for face in faces]

    def add(self, day: str, count: int = 12, *, dark: bool = False) -> list[Path]:
        paths = [self.media / f"{day}-{number:02d}.jpg" for number in range(count)]
        for number, path in enumerate(paths):
            face = self._faces[number % 3]
            pixels = cv2.convertScaleAbs(face, alpha=1, beta=self._chance.uniform(-9, 9))
            if dark:
                pixels = (cv2.GaussianBlur(pixels, (0, 0), 2.6) * 0.3).astype(np.uint8)
            cv2.imwrite(str(path), pixels)
        return paths

    def run(self, *arguments: str) -> Result:
        return jobs("run", self.file, *arguments)

    @property
    def records(self) -> list[dict[str, Any]]:
        return [record.facts for record in read_run_records(self.out, "nightly")]

    @property
    def notifications(self) -> list[dict[str, Any]]:
        path = self.file.parent / "notified"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_on_page(out: Path) -> dict[str, Any]:
    """What the page of results says of the last run."""
    packed = re.search(r'id="index">([^<]*)<', (out / "report" / "index.html").read_text())
    assert packed
    plain = zlib.decompress(base64.b64decode(packed[1]))
    found: dict[str, Any] = json.loads(plain[4 : 4 + int.from_bytes(plain[:4], "little")])["run"]
    return found


def test_a_week_of_runs(tmp_path: Path) -> None:
    study = Study(tmp_path)
    done: dict[str, Result] = {}
    for day in ("mon", "tue", "wed", "thu", "fri", "sat", "sun"):
        came = study.add(day, 36 if day == "sun" else 12, dark=day == "sun")
        if day == "tue":
            came[0].write_bytes(came[1].read_bytes())  # a copy, and one of Monday's is another picture now
            cv2.imwrite(str(study.media / "mon-00.jpg"), np.full((80, 80, 3), 90, np.uint8))
        if day == "wed":
            study.media.rename(tmp_path / "away")  # the disk with the media is not there
        if day == "fri":
            (study.media / "thu-03.jpg").unlink()
            (study.media / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
        done[day] = study.run()
        if day == "wed":
            (tmp_path / "away").rename(study.media)

    codes = {day: result.exit_code for day, result in done.items()}
    assert codes == {"mon": 0, "tue": 0, "wed": 2, "thu": 0, "fri": 3, "sat": 3, "sun": 3}, {d: r.stderr for d, r in done.items()}
    assert [record["how"] for record in study.records] == ["done", "done", "UsageError", *["done"] * 4]
    analysed = [record.get("figures", {}).get("media") for record in study.records]
    assert analysed == [12, 13, None, 24, 13, 12, 36]

    # One notification for each failure, in the run in which it happened.
    assert [facts["how"] for facts in study.notifications] == ["UsageError", "done"]
    assert "media does not exist" in study.notifications[0]["message"]
    assert [failure["media"] for failure in study.notifications[1]["failures"]] == ["broken.jpg"]

    # Only the last run can be compared with five others, and its pictures are dark.
    notes = [record["drift"]["note"] for record in study.records if "drift" in record]
    assert [re.findall(r"\d of the 5", note) for note in notes] == [*([f"{before} of the 5"] for before in range(5)), []]
    drift = study.records[-1]["drift"]
    assert drift["runs"] == 5
    assert "confidence" in {finding["figure"] for finding in drift["findings"]}
    for finding in drift["findings"]:
        assert f"unusual  {finding['text']}" in done["sun"].stderr
    assert "unusual" not in done["sat"].stderr
    assert "1 vanished, whose results are kept (options.prune)" in done["fri"].stderr

    # The page says the same, and compares with the run before.
    run = run_on_page(study.out)
    assert run["drift"] == [finding["text"] for finding in drift["findings"]]
    assert (run["job"], run["how"], run["before"]) == ("nightly", "done", study.records[-2]["started"])
    assert (run["failing"], run["vanished"]) == ([], ["thu-03.jpg"])

    shown = jobs("status", study.file)
    assert shown.exit_code == 0, shown.stderr
    assert "could not start" in shown.stdout
    assert "(02:30 every day); but neither systemd nor cron" in shown.stdout
    assert drift["findings"][0]["text"] in shown.stdout
    (found,) = json.loads(jobs("status", study.file, "--json").stdout)
    assert [run["run_id"] for run in found["runs"]] == [record["run_id"] for record in reversed(study.records)]
    assert found["next"][11:16] == "02:30"
    assert not found["running"]


def test_check_says_what_would_be_done_and_how_long_it_takes(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.add("mon", 4)
    (study.media / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    first = jobs("check", study.file)
    assert first.exit_code == 0
    assert "5 media (5 new)" in first.stdout
    assert "The duration is not known" in first.stdout
    assert not study.out.exists(), "checking writes nothing"
    study.run()
    study.add("tue", 2)
    cv2.imwrite(str(study.media / "mon-01.jpg"), np.full((80, 80, 3), 90, np.uint8))
    (study.out / "faces" / "mon-02.jpg.parquet").unlink()
    found = json.loads(jobs("check", study.file, "--json").stdout)
    assert {name: found[name] for name in ("new", "changed", "again", "retried", "failed_before", "done")} == {
        "new": ["tue-00.jpg", "tue-01.jpg"],
        "changed": ["mon-01.jpg"],
        "again": ["mon-02.jpg"],
        "retried": [],
        "failed_before": ["broken.jpg"],
        "done": ["mon-00.jpg", "mon-03.jpg"],
    }
    (record,) = study.records
    took = record["figures"]["seconds"]
    assert 0 < found["seconds"] < took * 2
    assert found["runs"] == 1
    assert "by the speed of 1 earlier run" in jobs("check", study.file).stdout
    study.file.write_text(study.file.read_text().replace("workers = 1", "workers = 1\nretry_failed = true"))
    assert json.loads(jobs("check", study.file, "--json").stdout)["retried"] == ["broken.jpg"]


def test_media_that_are_only_drawn_again_are_named(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.add("mon", 2)
    study.file.write_text(study.file.read_text().replace("annotate = false", "annotate = true"))
    study.run()
    (study.out / "annotated" / "mon-01.jpg.jpg").unlink()
    printed = jobs("check", study.file).stdout
    assert "drawn again  mon-01.jpg" in printed
    assert "would analyse 0 media" in printed
    assert "1 would be drawn again, 1 are done" in " ".join(printed.split())
    ended = jobs("run", study.file)
    assert "0 media analysed; 1 drawn again; 1 done before" in ended.stderr
    assert study.records[-1]["media"]["redrawn"] == 1


def test_the_time_of_drawing_again_is_not_that_of_analysis(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.file.write_text(study.file.read_text().replace("annotate = false", "annotate = true"))
    study.add("mon", 2)
    study.run()
    copy = study.out / "annotated" / "mon-01.jpg.jpg"
    copy.unlink()
    assert "That may take" not in jobs("check", study.file).stdout
    study.add("tue", 1)
    printed = " ".join(jobs("check", study.file).stdout.split())
    assert "by the speed of 1 earlier run; drawing again comes on top of that." in printed
    study.run()
    assert (study.records[-1]["media"]["analysed"], study.records[-1]["media"]["redrawn"]) == (1, 1)
    study.add("wed", 1)
    assert "by the speed of 1 earlier run." in " ".join(jobs("check", study.file).stdout.split()), "the last run had both"


def test_check_finds_problems_of_a_scheduled_run(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.file.write_text('inputs = ["media"]\nout = "r"\n[notification]\ncommand = ["no-such-program"]\n[retention]\nruns = 3\n')
    found = jobs("check", study.file)
    assert found.exit_code == 2
    assert "no-such-program is no program" in found.stdout
    assert "keep 6 or more" in found.stdout


def test_the_last_runs_are_kept_and_those_of_others(tmp_path: Path) -> None:
    study = Study(tmp_path, more="[retention]\nruns = 2\n")
    other = study.out / "runs" / "20200101T000000Z-aaaaaa"
    other.mkdir(parents=True)
    (other / "run.json").write_text('{"run_id": "by hand"}')
    (study.out / "runs" / "notes").mkdir()
    ids = [json.loads(study.run("--json").stdout)["run_id"] for _ in range(4)]
    kept = [record["run_id"] for record in study.records]
    assert kept == ids[-2:]
    assert {path.name for path in (study.out / "runs").iterdir()} == {other.name, "notes", *kept}


def test_a_held_folder_is_left_alone(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.add("mon", 1)
    study.out.mkdir()
    with FileLock(study.out / ".batchemo.lock"):
        ended = study.run()
        (status,) = json.loads(jobs("status", study.file, "--json").stdout)
    assert ended.exit_code == 75
    assert status["running"]
    assert study.records == [], "the run that holds the folder keeps the record"
    assert [facts["how"] for facts in study.notifications] == ["LockedError"]


def test_shards_of_a_job(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.add("mon", 6)
    facts = [json.loads(study.run("--shard", f"{index}/2", "--json").stdout) for index in (1, 2)]
    assert sum(each["figures"]["media"] for each in facts) == 6
    assert [each["options"]["shard"] for each in facts] == ["1/2", "2/2"]
    assert "(shard 2/2)" in jobs("status", study.file).stdout
    assert study.run("--shard", "3/2").exit_code == 2


def test_a_run_that_was_killed_is_said_to_be(tmp_path: Path) -> None:
    study = Study(tmp_path)
    folder = study.out / "runs" / "20261124T023000Z-aaaaaa"
    folder.mkdir(parents=True)
    facts = {"run_id": folder.name, "job": "nightly", "started": "2026-11-24T02:30:00.000+00:00", "options": {}}
    (folder / "run.json").write_text(json.dumps(facts))
    (study.out / "runs" / "damaged").mkdir()
    (study.out / "runs" / "damaged" / "run.json").write_text("{")
    assert "killed, or the machine went down" in jobs("status", study.file).stdout
    with FileLock(study.out / ".batchemo.lock"):
        assert "running" in jobs("status", study.file).stdout


def test_status_names_the_stages_that_took_most_time(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.run()
    (record,) = read_run_records(study.out, "nightly")
    record.facts["seconds_by_stage"] = {"decode": 1.0, "detect": 3.0, "hash": 0.001}
    record.save()
    assert "Time went to detect 75%, decode 25%." in jobs("status", study.file).stdout


# --- notification ---


def notify_by(script: str, folder: Path, *, timeout: float = 20.0, facts: dict[str, Any] | None = None) -> str:
    return notify(Notification(command=("sh", "-c", script), timeout_seconds=timeout), facts or {"how": "done"}, folder=folder)


def test_a_notifier_gets_the_run_record_and_its_problem_is_reported(tmp_path: Path) -> None:
    assert notify_by("cat > got", tmp_path, facts={"name": "é\udce9"}) == ""
    assert json.loads((tmp_path / "got").read_text()) == {"name": "é\udce9"}
    assert notify_by("echo no route to host >&2; exit 7", tmp_path) == "sh: exit code 7: no route to host"
    assert notify_by("exit 0", tmp_path, facts={"long": "x" * 10**6}) == "", "it need not read"
    missing = notify(Notification(command=("/no/such program",)), {}, folder=tmp_path)
    assert missing == "/no/such program: No such file or directory"


def test_a_notifier_that_hangs_is_killed_with_all_it_started(tmp_path: Path) -> None:
    began = time.monotonic()
    assert "had not ended after 0.3 s" in notify_by("sleep 60 & echo $! > pid; wait", tmp_path, timeout=0.3)
    assert notify_by("sleep 60 > /dev/null & echo $! > pid2", tmp_path) == "", "what it leaves behind does not keep us"
    assert time.monotonic() - began < 20
    state = Path("/proc") / (tmp_path / "pid").read_text().strip() / "stat"
    deadline = time.monotonic() + 5
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
    os.kill(int((tmp_path / "pid2").read_text()), 9)


@pytest.mark.parametrize(("when", "times"), [("always", 1), ("never", 0), ("failure", 0)])
def test_a_notifier_that_fails_fails_no_run(tmp_path: Path, when: str, times: int) -> None:
    study = Study(tmp_path)
    (tmp_path / "notify.py").write_text("import sys; sys.exit('no mail today')")
    study.file.write_text(study.file.read_text() + f'when = "{when}"\n')
    ended = study.run("--quiet")
    assert ended.exit_code == 0
    assert ended.stderr.count("the notification failed") == times
    assert ended.stderr.count("no mail today") == times
    (log,) = study.out.glob("runs/*/log.jsonl")
    notified = [json.loads(line) for line in log.read_text().splitlines() if '"notified"' in line]
    assert [("no mail today" in each["problem"]) for each in notified] == [True] * times


# --- installing ---

NAMES = ["nightly", "every night", "50% of $HOME", 'it\'s "so"', "back\\slash", "Grüße 😀", "a;b & c", "100%%n"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of our own, with a crontab that is a file, and without systemd."""
    place = tmp_path / "home"
    (place / "bin").mkdir(parents=True)
    script = place / "bin" / "crontab"
    script.write_text(
        f"#!/bin/sh\nfile={shlex.quote(str(place / 'tab'))}\n"
        'case "$1" in -l) test -f "$file" || { echo "no crontab for me" >&2; exit 1; }; cat "$file";; -) cat > "$file";; esac\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{place / 'bin'}:{os.environ['PATH']}")
    return place


def job_called(name: str, folder: Path) -> Path:
    file = folder / f"{name}.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text('name = "nightly"\ninputs = ["."]\nout = "../results"\n[schedule]\nat = ["02:30", "14:00"]\ndays = ["mon", "sun"]\n')
    return file


@pytest.mark.parametrize("name", NAMES)
def test_units_start_that_very_job(tmp_path: Path, home: Path, name: str) -> None:
    file = job_called(name, tmp_path / "my jobs")
    folder = tmp_path / "units"
    assert jobs("install", file, "--systemd").stdout.count("OnCalendar=") == 2
    assert not folder.exists()
    ended = jobs("install", file, "--systemd", "--write", "--folder", folder)
    assert ended.exit_code == 0, ended.stderr
    assert "now type: systemctl enable --now batchemo-nightly.timer" in ended.stderr
    verify(*folder.iterdir())
    (line,) = (line for line in (folder / "batchemo-nightly.service").read_text().splitlines() if line.startswith("ExecStart="))
    # The colon says that $ is an ordinary sign; what is left of systemd's quoting in these lines is what a shell knows too.
    assert line.startswith('ExecStart=:"')
    arguments = shlex.split(line.removeprefix("ExecStart=:").replace("%%", "%"))
    assert arguments[-3:] == ["jobs", "run", str(file)]
    file.unlink()  # uninstalling needs no file
    assert jobs("uninstall", file, "--folder", folder).exit_code == 0
    assert list(folder.iterdir()) == []
    assert jobs("uninstall", file, "--folder", folder).exit_code == 2


def test_what_no_printer_prints_is_escaped_for_systemd() -> None:
    assert quoted_for_systemd("a\nb\x1b%\udce9") == '"a\\x0ab\\x1b%%\\xe9"'


def test_units_of_the_user(tmp_path: Path, home: Path) -> None:
    file = job_called("nightly", tmp_path / "jobs")
    ended = jobs("install", file, "--systemd", "--write")
    assert ended.exit_code == 0
    units = home / ".config" / "systemd" / "user"
    assert {path.name for path in units.iterdir()} == {"batchemo-nightly.service", "batchemo-nightly.timer"}
    assert "enable-linger" in ended.stderr
    assert json.loads(jobs("status", file, "--json").stdout)[0]["installed"] == ["systemd"]
    other = job_called("nightly", tmp_path / "other jobs")
    refused = jobs("install", other, "--systemd", "--write")
    assert refused.exit_code == 2
    assert "is of another job" in refused.stderr
    (units / "batchemo-mine.service").write_text("[Unit]\n")
    assert jobs("uninstall", other).exit_code == 2
    assert jobs("uninstall", file).exit_code == 0
    assert [path.name for path in units.iterdir()] == ["batchemo-mine.service"]


def as_cron_does(line: str, *, removes_backslash: bool) -> list[str]:
    """The arguments that a line's command starts with. Crons differ in who takes the backslash from in front of a percent sign."""
    command, escaped = "", False
    for sign in line.split(" ", 5)[5]:
        if sign == "%" and not escaped:
            break
        if sign == "%" and removes_backslash:
            command = command[:-1]
        command += sign
        escaped = sign == "\\" and not escaped
    shown = f"{shlex.quote(sys.executable)} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' {command}"
    found = subprocess.run(["/bin/sh", "-c", shown], capture_output=True, text=True, check=True)
    return list(json.loads(found.stdout))


@pytest.mark.parametrize("name", NAMES)
def test_crontab_lines_start_that_very_job(tmp_path: Path, home: Path, name: str) -> None:
    file = job_called(name, tmp_path / "my jobs")
    before = "MAILTO=me@example.org\n\n# mine\x85 own\n*/5 * * * * date +\\%F > /tmp/x\n"
    (home / "tab").write_text(before)
    lines = [line for line in jobs("install", file, "--cron").stdout.splitlines() if not line.startswith("#")]
    assert [line.split(" nice ")[0] for line in lines] == ["30 2 * * 1,0", "0 14 * * 1,0"]
    assert (home / "tab").read_text() == before, "nothing is written before --write"
    for removes in (True, False):
        program, *arguments = as_cron_does(lines[0], removes_backslash=removes)
        assert program == "nice"
        assert arguments[-4:] == ["jobs", "run", str(file), "--quiet"]
        assert parse(arguments[-4:])["file"] == file
    for _ in range(2):
        assert jobs("install", file, "--cron", "--write").exit_code == 0
    assert (home / "tab").read_text().startswith(before)
    assert (home / "tab").read_text().count("\n") == before.count("\n") + 4, "once, with its two marks"
    assert json.loads(jobs("status", file, "--json").stdout)[0]["installed"] == ["cron"]
    file.unlink()
    assert jobs("uninstall", file).exit_code == 0
    assert (home / "tab").read_text() == before


def test_a_crontab_that_cannot_be_read_is_not_replaced(tmp_path: Path, home: Path) -> None:
    file = job_called("nightly", tmp_path / "jobs")
    assert jobs("install", file, "--cron", "--write").exit_code == 0, "none at all is an empty one"
    assert (home / "tab").read_text().count("\n") == 4
    (home / "bin" / "crontab").write_text(f"#!/bin/sh\ntouch {home}/asked\necho 'not allowed' >&2\nexit 1\n")
    before = (home / "tab").read_text()
    ended = jobs("install", file, "--cron", "--write")
    assert ended.exit_code == 2
    assert "cannot be read (not allowed)" in ended.stderr
    assert (home / "tab").read_text() == before
    assert (home / "asked").exists()


def test_a_crontab_with_a_lost_mark_is_left_alone(tmp_path: Path, home: Path) -> None:
    file = job_called("nightly", tmp_path / "jobs")
    jobs("install", file, "--cron", "--write")
    lines = (home / "tab").read_text().splitlines()
    (home / "tab").write_text("\n".join([*lines[:-1], "0 0 * * * mine"]) + "\n")
    ended = jobs("uninstall", file)
    assert ended.exit_code == 2
    assert "crontab -e" in ended.stderr
    assert "mine" in (home / "tab").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--systemd or --cron"),
        (["--systemd", "--cron"], "--systemd or --cron"),
        (["--cron", "--folder", "x"], "--folder is for --systemd"),
    ],
)
def test_wrong_installs(tmp_path: Path, home: Path, arguments: list[str], words: str) -> None:
    ended = jobs("install", job_called("nightly", tmp_path / "jobs"), *arguments)
    assert ended.exit_code == 2
    assert words in ended.stderr


@pytest.mark.parametrize(
    ("schedule", "wanted", "hint"),
    [("cron = '0 2 * * *'", "--systemd", "on_calendar"), ("on_calendar = 'daily'", "--cron", "cron ="), ("", "--cron", "at = '02:30'")],
)
def test_a_schedule_that_the_other_one_does_not_know(tmp_path: Path, home: Path, schedule: str, wanted: str, hint: str) -> None:
    file = tmp_path / "nightly.toml"
    file.write_text(f'inputs = ["."]\nout = "../r"\n{"[schedule]" if schedule else ""}\n{schedule}\n')
    ended = jobs("install", file, wanted)
    assert ended.exit_code == 2
    assert hint in ended.stderr
