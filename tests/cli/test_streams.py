"""Consoles that cannot show every character: commands replace what they cannot print, and never end in a traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import command_here, run_in_turn

ROOT = Path(__file__).parents[2]
NAME = "Grüße 夜 😀.jpg"
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
CONSOLES = {"cp1252": {"PYTHONIOENCODING": "cp1252"}, "ascii": {"PYTHONIOENCODING": "ascii"}, "C locale": C_LOCALE}
TERMINALS = {"pipe": {}, "terminal": {"FORCE_COLOR": "1", "COLUMNS": "130"}}


def call(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "batchemo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, cwd=ROOT, env={**os.environ, **environment})


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    shutil.copy(ROOT / "sample_media" / "grace_hopper.jpg", folder / NAME)
    (folder / f"broken {NAME}").write_bytes(b"\xff\xd8 no picture")
    return folder


@pytest.fixture(scope="module")
def results(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "ö"
    assert command_here("run", media, "--out", out, "--workers", 1).returncode == 3
    return out


@pytest.mark.parametrize(
    ("console", "terminal"), [("cp1252", "pipe"), ("cp1252", "terminal"), ("ascii", "pipe"), ("ascii", "terminal"), ("C locale", "pipe")]
)
def test_a_run_and_what_is_made_of_it(console: str, terminal: str, media: Path, results: Path) -> None:
    environment = {**os.environ, **CONSOLES[console], **TERMINALS[terminal]}
    job = media.parent / f"{media.name}.toml"
    job.write_text(f"inputs = {json.dumps(str(media))}\nout = {json.dumps(str(results))}\n", encoding="utf-8")
    run = ("run", media, "--out", results)
    others = (("verify", results), ("jobs", "status", job), ("jobs", "run", job), (*run, "--dry-run"), ("run", "--help"))
    every = run_in_turn(("summary", results), ("summary", results, "--json"), (*run, "--json"), run, *others, cwd=ROOT, env=environment)
    for ended in every:
        assert ended.returncode in (0, 3), ended.stderr.decode("ascii", "backslashreplace")
        assert b"Traceback" not in ended.stderr
        encoding = "cp1252" if console == "cp1252" else "ascii"
        ended.stdout.decode(encoding)
        ended.stderr.decode(encoding)
    summary, *as_json = every[:3]
    if terminal == "pipe":
        line = next(line for line in summary.stdout.splitlines() if b" done " in line)
        assert line.split(b"%  ")[1].split()[0] in (b"*", b"#", b"@"), "blocks cannot be shown"
    for ended in as_json:
        found = json.loads(ended.stdout.decode("ascii"))
        assert {medium["media"] for medium in found["media"]} == {NAME, f"broken {NAME}"}
    assert (found["analysed"], found["vanished"]) == ([], []), "names of results are those of files"


def test_the_doctor_needs_no_unicode() -> None:
    ended = call("doctor", **CONSOLES["ascii"])
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_speeds_need_no_unicode() -> None:
    script = """
from batchemo.cli.benchmark import Throughput
from batchemo.cli.progress import SpeedTable
from batchemo.cli.streams import prepare_streams
prepare_streams()
with SpeedTable(quiet=False) as table:
    table.add(Throughput("n\\u591c", 9, 9, 1, 9.0, {"d\\xe9code": 1.0}, 100))
table.print_table({"start": 1.0, "help": 0.1})
"""
    environment = {**os.environ, **CONSOLES["ascii"], **TERMINALS["terminal"]}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, cwd=ROOT, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert b"Slowest stage" in ended.stdout
    assert b"n? " in ended.stdout
