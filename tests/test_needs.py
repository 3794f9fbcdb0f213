"""Tests are skipped where a machine lacks what they need, fail where it must be there, and ask for it in one way."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import REQUIRED, need, required

TESTS = Path(__file__).parent
_ASKING = {"which", "find_spec", "CHROMIUM", "DRIVER"}


@pytest.fixture
def no_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")


@pytest.mark.usefixtures("no_commands")
@pytest.mark.parametrize("others", ["", "chromium", "chromium, decord"])
def test_what_is_missing_is_a_skip(monkeypatch: pytest.MonkeyPatch, others: str) -> None:
    monkeypatch.setenv(REQUIRED, others)
    with pytest.raises(pytest.skip.Exception, match="Debian's package ffmpeg"):
        need("ffmpeg")


@pytest.mark.usefixtures("no_commands")
def test_what_must_be_there_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRED, "chromium,ffmpeg")
    with pytest.raises(pytest.fail.Exception, match="Debian's package ffmpeg"):
        need("ffmpeg")


def test_a_misspelt_requirement_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRED, "ffmpg")
    with pytest.raises(pytest.UsageError, match="ffmpg is none of"):
        required()


@pytest.mark.slow
@pytest.mark.parametrize(("names", "ended"), [("", 0), ("ffmpeg", 1), ("ffmpg", 4)])
def test_marked_tests(tmp_path: Path, names: str, ended: int) -> None:
    """A run of pytest with this folder's conftest, where FFmpeg's commands are not to be found."""
    (tmp_path / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (tmp_path / "test_one.py").write_text('import pytest\n\n@pytest.mark.needs("ffmpeg")\ndef test_it() -> None: ...\n')
    environment = {**os.environ, "PATH": "/nowhere", "PYTHONPATH": f"{TESTS}:{TESTS.parent}", REQUIRED: names}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert run.returncode == ended, run.stdout + run.stderr


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: path.stem)
def test_all_ask_in_one_way(path: Path) -> None:
    """Skips that look for a program or a module themselves would stay skips where it is required."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = {getattr(each, "id", getattr(each, "attr", None)) for each in ast.walk(node)}
        assert not (isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "importorskip"), "use needs.need"
        if (isinstance(node, ast.If) and "skip" in names) or (isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "skipif"):
            assert not names & _ASKING, f"line {node.lineno}: use pytest.mark.needs"
