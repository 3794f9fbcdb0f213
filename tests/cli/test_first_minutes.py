"""The first minutes with batchemo: what to type, help with examples, suggestions, reasons."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from batchemo.analysis.export.formats import export_results
from batchemo.cli import messages
from batchemo.cli.doctor import DoctorCheck, examine
from batchemo.cli.messages import print_checks, print_run_result
from batchemo.errors import UsageError
from batchemo.records import MediaRow
from batchemo.report.site import write_site
from batchemo.report.summary import FaceCounts, Summary, summarise
from batchemo.run.run import RunResult
from batchemo.verify.audit import verify
from tests.running import command_here

ROOT = Path(__file__).parents[2]
COMMANDS = ("run", "summary", "export", "verify", "bench", "doctor")
JOB_COMMANDS = {"check", "run", "status", "install", "uninstall"}


def call(*arguments: str | Path, home: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "160", **({"HOME": str(home)} if home else {}), **more}
    command = [sys.executable, "-m", "batchemo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


def call_here(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    return command_here(*arguments, **{"COLUMNS": "160", **more})


def test_alone_it_shows_what_to_type() -> None:
    ended = call()
    assert ended.returncode == 0
    lines = [line for line in ended.stdout.splitlines() if line.startswith("  ")]
    assert len(lines) == 3
    for line, command in zip(lines, ("run", "summary", "doctor"), strict=True):
        assert f"batchemo {command}" in line
    assert "--help" in ended.stdout


def test_commands_have_their_names() -> None:
    for group, names in (((), {"run", "jobs", "report", "summary", "export", "verify", "bench", "doctor"}), (("jobs",), JOB_COMMANDS)):
        panels = call_here(*group, "--help", COLUMNS="100").stdout.split("Examples")[0].split("╭─ ")[2:]
        assert set(re.findall(r"^│ ([a-z-]+)", "".join(panels), re.MULTILINE)) == names


def test_help_is_grouped() -> None:
    output = call_here("--help").stdout
    for group in ("Analysis", "Results", "This machine", "Examples"):
        assert group in output
    for command in COMMANDS:
        assert f" {command} " in output


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_examples_that_parse(command: str) -> None:
    """Each example is taken by the command line: nothing in it is unknown."""
    output = call_here(command, "--help").stdout
    examples = [line.strip() for line in output.split("Examples")[1].splitlines() if line.strip().startswith(f"batchemo {command}")]
    assert examples
    for example in examples:
        for part in example.split(" | ")[0].split():
            assert not part.startswith("--") or part in output.split("Examples")[0]


@pytest.mark.parametrize(
    ("arguments", "suggested"),
    [
        (("rnu",), "run"),
        (("sumary", "x"), "summary"),
        (("run", "x", "--ot", "y"), "--out"),
        (("run", "x", "--sample-fp", "5"), "--sample-fps"),
        (("summary", "x", "--jsn"), "--json"),
        (("export", "x", "--to", "vtt"), "webvtt"),
    ],
    ids=" ".join,
)
def test_typos_get_suggestions(arguments: tuple[str, ...], suggested: str) -> None:
    ended = call_here(*arguments)
    assert ended.returncode == 2
    assert suggested in ended.stderr.replace(" ".join(arguments), "")


@pytest.mark.parametrize("command", ["run", "jobs", "jobs check", "jobs run", "jobs status", "jobs install", "jobs uninstall"])
def test_help_has_no_words_of_programmers(command: str) -> None:
    output = call_here(*command.split(), "--help").stdout
    assert "Examples" in output
    assert f"Usage: batchemo {command}" in output
    assert "bool" not in output
    assert "str]" not in output


def test_choices_are_told_without_ceremony() -> None:
    output = " ".join(call_here("run", "x", "--out", "y", "--detector", "fats").stderr.split())
    assert "Invalid value for '--detector': 'fats' is not one of 'fast', 'exact'." in output


@pytest.mark.parametrize("read", [summarise, write_site, verify, lambda path: export_results(path, "csv")])
def test_the_folder_that_was_meant_is_named(tmp_path: Path, read: Callable[[Path], object]) -> None:
    results = tmp_path / "my results"
    (results / "plots").mkdir(parents=True)
    (results / "media.parquet").touch()
    for wrong in (results / "plots", tmp_path / "my result", tmp_path):
        with pytest.raises(UsageError, match=f"holds no results; did you mean '{results}'\\?"):
            read(wrong)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    place = tmp_path / "other"
    output = f"batchemo: {place} does not exist, so that it holds no results; make some with: batchemo run INPUT --out {place}\n"
    assert call_here("summary", place).stderr == output


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    ended = call_here("run", tmp_path, "--out", tmp_path / "out")
    assert ended.returncode == 0
    assert "No pictures or videos were found: nothing that is JPEG" in ended.stderr


def test_completion_can_be_installed_and_completes(tmp_path: Path) -> None:
    # The shell is asked of the processes above this one, so it must be named.
    ended = call("--install-completion", "bash", home=tmp_path, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert ended.returncode == 0, ended.stderr
    assert "completion" in (tmp_path / ".bashrc").read_text()
    script = "import sys; sys.argv = ['batchemo']; from batchemo.cli.main import main; main()"
    environment = {**os.environ, "_BATCHEMO_COMPLETE": "complete_bash", "COMP_WORDS": "batchemo export --to ", "COMP_CWORD": "3"}
    completed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert call("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout.rstrip().endswith(" batchemo")
    assert completed.stdout.split() == ["csv", "webvtt", "eaf", "mot", "notebook"]


# A run without faces


def report_of(*faces: int) -> RunResult:
    rows = [
        MediaRow(f"{n}.mp4", f"/{n}.mp4", "video", "done", width=320, height=240, n_frames_analysed=10, n_faces=count)
        for n, count in enumerate(faces)
    ]
    return RunResult("id", tuple(rows), tuple(row.media for row in rows), 1.0)


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Prints a result whose folder holds nothing, and gives back the text."""
    monkeypatch.setattr(messages, "summarise", lambda _: Summary((), FaceCounts(0, 0, 0, 0.0, 0, {})))

    def printed(result: RunResult, *, min_face_px: int = 40) -> str:
        print_run_result(result, Path("results"), reported=(), program="batchemo", python="python", min_face_px=min_face_px)
        return capsys.readouterr().err

    return printed


def test_a_run_without_any_face_says_why_that_may_be(printed: Callable[..., str]) -> None:
    output = printed(report_of(0, 0))
    assert "in 2 of 2 media: 0.mp4; 1.mp4" in output
    for reason in ("40 px", "320 x 240", "--min-face-px 20", "from the side", "upside down"):
        assert reason in output
    assert "--min-face-px 20" not in printed(report_of(0), min_face_px=20)


def test_a_few_media_without_faces_are_named(printed: Callable[..., str]) -> None:
    output = printed(report_of(0, 5, *[0] * 9))
    assert "in 10 of 11 media: 0.mp4; 2.mp4; 3.mp4; 4.mp4; 5.mp4; ..." in output
    assert "Possible reasons" not in output
    assert "No face" not in printed(report_of(3))


# The doctor


def test_the_doctor_says_how_to_get_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import importlib.metadata

    version = importlib.metadata.version

    def without(name: str) -> str:
        if name in {"decord", "pympi-ling", "pyarrow"}:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    found = {finding.part: finding for finding in examine()}
    assert "pip install decord" in found["short clips"].detail
    assert 'pip install "batchemo[eaf]"' in found["export to ELAN"].detail
    assert not found["export to ELAN"].needed
    assert (found["tables"].ok, found["tables"].needed) == (False, True)
    print_checks(list(found.values()))
    assert "A run cannot work without: tables." in capsys.readouterr().out


def test_the_doctor_is_content(capsys: pytest.CaptureFixture[str]) -> None:
    print_checks([DoctorCheck("GPU", False, "none", needed=False)])
    assert capsys.readouterr().out.endswith("All that a run needs is here.\n")
