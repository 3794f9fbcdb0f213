"""The parameters of `batchemo run`, which are made from the declaration of the options."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from batchemo.cli import run
from batchemo.cli.main import main_app
from batchemo.errors import UsageError
from batchemo.options import OPTIONS, RunOptions, merge_options

ROOT = Path(__file__).parents[2]
TYPED: dict[str, dict[str, Any]] = {
    "--include *.mp4 --include *.mov": {"include": ("*.mp4", "*.mov")},
    "--exclude old*": {"exclude": ("old*",)},
    "--follow-symlinks": {"follow_symlinks": True},
    "--decoder pyav": {"decoder": "pyav"},
    "--sample-fps 2.5": {"sample_fps": 2.5},
    "--min-face-px 80": {"min_face_px": 80},
    "--detector exact": {"detector": "exact"},
    "--appearance": {"appearance": True},
    "--no-appearance": {"appearance": False},
    "--weights my.safetensors": {"weights": Path("my.safetensors")},
    "--uncertain-below 0.7": {"uncertain_below": 0.7},
    "--device cuda:1": {"device": "cuda:1"},
    "--workers 3": {"workers": 3},
    "--engine dask": {"engine": "dask"},
    "--scheduler tcp://10.0.0.1:8786": {"scheduler": "tcp://10.0.0.1:8786"},
    "--batch-size 32": {"batch_size": 32},
    "--timeout-s 9.5": {"timeout_s": 9.5},
    "--timeout 9.5": {"timeout_s": 9.5},
    "--timeout 9.5 --timeout-s 9.5": {"timeout_s": 9.5},
    "--max-memory-mb 900": {"max_memory_mb": 900},
    "--max-memory 900": {"max_memory_mb": 900},
    "--annotate": {"annotate": True},
    "--no-annotate": {"annotate": False},
    "--blur-faces": {"blur_faces": True},
    "--no-blur-faces": {"blur_faces": False},
    "--blur-style solid": {"blur_style": "solid"},
    "--timeline": {"timeline": True},
    "--no-timeline": {"timeline": False},
    "--codec av1": {"codec": "av1"},
    "--quality high": {"quality": "high"},
    "--hardware": {"hardware": True},
    "--no-hardware": {"hardware": False},
    "--report": {"report": True},
    "--no-report": {"report": False},
    "--force": {"force": True},
    "--retry-failed": {"retry_failed": True},
    "--prune": {"prune": True},
    "--wait-s 60": {"wait_s": 60.0},
    "--wait 60": {"wait_s": 60.0},
    "--dry-run": {"dry_run": True},
    "-q -v --json --resume": {},
}


@pytest.fixture
def merged(monkeypatch: pytest.MonkeyPatch) -> list[RunOptions]:
    """Receives the options of each command, which then ends."""
    found: list[RunOptions] = []

    def merge(flags: dict[str, Any], *, config: Path | None) -> RunOptions:
        found.append(merge_options(flags, environment={}, config=config, default_file=Path("no such file")))
        raise UsageError("enough")

    monkeypatch.setattr(run, "merge_options", merge)
    return found


@pytest.mark.parametrize("typed", TYPED)
def test_each_spelling_gives_its_option(typed: str, merged: list[RunOptions]) -> None:
    ended = CliRunner().invoke(main_app, ["run", "in", "--out", "out", *typed.split()])
    assert ended.stderr == "batchemo: enough\n"
    assert merged == [RunOptions(**TYPED[typed])]


def test_each_option_is_typed_above() -> None:
    assert {name for given in TYPED.values() for name in given} == set(OPTIONS) - {"shard"}


def test_a_shard_is_typed_as_a_fraction(merged: list[RunOptions]) -> None:
    CliRunner().invoke(main_app, ["run", "in", "--out", "out", "--shard", "2/8"])
    assert str(merged[0].shard) == "2/8"


@pytest.mark.parametrize(("old", "new", "other"), [("--timeout", "--timeout-s", 5), ("--max-memory", "--max-memory-mb", 300)])
def test_two_spellings_of_one_option_must_agree(old: str, new: str, other: int) -> None:
    ended = CliRunner().invoke(main_app, ["run", "in", "--out", "out", old, "600", new, str(other)])
    assert ended.exit_code == 2
    assert f"{old} 600" in ended.stderr.replace(".0", "")
    assert f"{new} {other}" in ended.stderr.replace(".0", "")
    assert f"give {new} alone" in ended.stderr


def test_help_shows_each_option_once_and_earlier_names_not_at_all() -> None:
    shown = CliRunner(env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}).invoke(main_app, ["run", "--help"]).stdout
    flags = re.findall(r"│ [* ]*(--[a-z-]+)", shown)
    own = "--out --help --resume --config --json --quiet --verbose".split()
    assert sorted(flags) == sorted([*own, *(f"--{name.replace('_', '-')}" for name in OPTIONS)])
    panels = re.findall(r"╭─ ([A-Z][a-z ]+) ─", shown)
    assert panels == ["Arguments", "Options", "Input", "Analysis", "Execution", "Output", "Annotated copies", "Resuming", "Messages"]
    for default in ("(default: all frames)", "(default: 300)", "(default: no-timeline)", "(default: 0.5)", "no-blur-faces in a new one)"):
        assert default in shown


COMPLETED = [("--time", "--timeout-s --timeline"), ("--codec ", "h264 hevc av1 vp9"), ("--no-ann", "--no-annotate")]


@pytest.mark.parametrize(("typed", "completed"), COMPLETED)
def test_options_complete_in_the_shell(typed: str, completed: str) -> None:
    words = f"batchemo run in {typed}"
    environment = {**os.environ, "_BATCHEMO_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    script = "import sys; sys.argv = ['batchemo']; from batchemo.cli.main import main; main()"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert sorted(ended.stdout.split()) == sorted(completed.split())
