"""The live display of a run."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from batchemo.cli import progress
from batchemo.cli.progress import RunProgress
from batchemo.records import MediaRow, Medium
from batchemo.run.plan import RunPlan


def test_where_no_bar_is_shown_a_run_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    console = Console(width=300, record=True, file=io.StringIO())
    monkeypatch.setattr(progress, "line_console", lambda **_: console)
    monkeypatch.setattr(progress, "_LOG_SECONDS", 0)
    monkeypatch.setattr(progress, "_REFRESH_SECONDS", 0.01)
    media = [Medium(tmp_path / name, name, name, "video") for name in ("a.mp4", "b.mp4")]
    for medium in media:
        medium.path.write_bytes(b"12345")
    with RunProgress(quiet=False, verbose=False) as shown:
        shown.callbacks.started(RunPlan(tuple(media), ()), tmp_path)
        shown.callbacks.finished(MediaRow("a.mp4", "/a.mp4", "video", "done"))
        time.sleep(0.2)
    assert "1 of 2 media, 50%, 0 frames a second" in console.export_text()
