"""What README says can be typed: every command and line of Python in it runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import command_here

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent
QUICK = {"BATCHEMO_FOLLOW_SYMLINKS": "1", "BATCHEMO_SAMPLE_FPS": "1", "BATCHEMO_WORKERS": "1"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for the checkout, with the smallest of the samples under the names that README uses."""
    place = tmp_path_factory.mktemp("readme")
    (place / "sample_media").mkdir()
    (place / ".venv").mkdir()
    (place / ".venv" / "bin").symlink_to(BIN)
    (place / "jobs").mkdir()
    job = (ROOT / "jobs" / "nightly.toml").read_text()
    # Jobs do not read the environment, which makes the other commands quick.
    (place / "jobs" / "nightly.toml").write_text(job.replace("[options]", "[options]\nfollow_symlinks = true\nsample_fps = 1\nworkers = 1"))
    (place / "training").symlink_to(ROOT / "training")
    for name in ("grace_hopper.jpg", "two_people_and_a_cut.mp4"):
        (place / "sample_media" / name).symlink_to(ROOT / "sample_media" / name)
    return place


def in_readme(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **QUICK}
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False)


def test_the_commands_of_batchemo_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    weights = folder / "runs" / "polish"
    weights.mkdir(parents=True)
    for path in (ROOT / "batchemo" / "emotion" / "weights").iterdir():
        (weights / path.name.replace("fer2013", "weights")).symlink_to(path)
    (weights / "weights.safetensors.sha256").unlink()
    ran = 0
    for command in commands():
        if command[0] == "make" or command[0] == "python":
            continue
        ended = command_here(*command[1:], **QUICK) if command[0] == "batchemo" else in_readme(command, folder)
        assert ended.returncode == 0, (command, ended.stderr)
        ran += 1
    assert ran >= 9


def test_the_lines_of_python_run(folder: Path) -> None:
    if not (folder / "results").exists():
        assert in_readme(["batchemo", "run", "sample_media", "--out", "results"], folder).returncode == 0
    for block in blocks("python"):
        ended = in_readme([sys.executable, "-W", "error", "-c", block], folder)
        assert ended.returncode == 0, ended.stderr
        assert "two_people_and_a_cut.mp4" in ended.stdout


def test_the_commands_of_make_and_training_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in commands():
        if command[0] == "make":
            assert f"\n{command[1]}:" in makefile
        elif command[0] == "python":
            ended = subprocess.run([sys.executable, *command[1:4], "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
            assert ended.returncode == 0
            for option in command[4:]:
                assert not option.startswith("--") or option in ended.stdout


def test_options_in_readme_exist() -> None:
    wide = {**os.environ, "COLUMNS": "200"}
    commands = [
        ["run"],
        ["summary"],
        ["export"],
        ["verify"],
        ["jobs", "install"],
    ]
    output = "".join(command_here(*each, "--help", **wide).stdout for each in commands)
    training = [sys.executable, "-m", "training", "fit", "--help"]
    output += subprocess.run(training, capture_output=True, text=True, check=True, env=wide, cwd=ROOT).stdout
    for option in set(re.findall(r"--[a-z][a-z-]+", README)) - {"--help"}:
        assert option in output, option
