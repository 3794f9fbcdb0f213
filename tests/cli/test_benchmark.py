"""`batchemo bench` measures what it says, on a clip of the user's own and on made ones."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from batchemo.cli import benchmark
from batchemo.cli.benchmark import _Monitor, make_clip, make_pictures, measure
from batchemo.errors import UsageError
from batchemo.media.decode import open_source
from batchemo.records import Medium
from batchemo.results import writer
from batchemo.results.schema import write_table
from batchemo.run.processes import InProcessEngine, usable_cores
from tests.made_media import write_face_clip
from tests.running import command_here


def test_a_clip_of_ones_own_is_measured_stage_by_stage(tmp_path: Path) -> None:
    clip = write_face_clip(tmp_path / "clip.mp4", frames=12).path
    found = json.loads(command_here("bench", clip, "--json", "--workers", 1).stdout)
    assert set(found["fixed_seconds"]) == {"help", "start"}
    speeds = {(speed["what"], speed["processes"]): speed for speed in found["speeds"]}
    assert {what for what, _ in speeds} == {"decoding alone", "tables", "annotated copies"}
    tables = speeds["tables", 1]
    assert tables["frames"] == 12
    assert tables["faces"] > 0
    assert {"decode", "search and follow", "classify"} <= set(tables["stages_ms"])
    assert tables["limit"] == max(tables["stages_ms"], key=tables["stages_ms"].get)
    assert "encode" in speeds["annotated copies", 1]["stages_ms"]


def test_made_clips_have_the_faces_they_say(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "five.mp4", faces=5, seconds=0.2)
    frames = list(open_source(Medium(clip, "five.mp4", "five.mp4", "video")).frames())
    assert [frame.pixels.shape for frame in frames] == [(720, 1280, 3)] * 6


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many processes each engine was asked for; this process does their work."""
    counts: list[int] = []

    def engine(count: int, **_: Any) -> InProcessEngine:
        counts.append(count)
        return InProcessEngine()

    monkeypatch.setattr(benchmark, "ProcessEngine", engine)
    return counts


def test_a_folder_of_pictures_is_measured(tmp_path: Path, asked: list[int]) -> None:
    speeds = list(measure(make_pictures(tmp_path / "pictures", 4), seconds=1, min_face_px=40))
    assert {(speed.what, speed.frames) for speed in speeds} == {("decoding alone", 4), ("tables", 4), ("annotated copies", 4)}
    assert {speed.faces for speed in speeds if speed.what != "decoding alone"} == {4}
    assert {speed.processes for speed in speeds} == {1, usable_cores()}
    assert asked == [usable_cores()] * 2 * (usable_cores() > 1)


def test_what_writing_tables_takes_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(*arguments: Any, **options: Any) -> Any:
        began = time.thread_time()
        while time.thread_time() - began < 0.2:
            pass
        return write_table(*arguments, **options)

    monkeypatch.setattr(writer, "write_table", slowly)
    speeds = measure(make_pictures(tmp_path / "pictures", 2), seconds=1, min_face_px=40, workers=1)
    assert [speed.stages_ms["track and write"] > 400 for speed in speeds if speed.processes == 1 and speed.faces] == [True, True]


def test_what_is_damaged_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_pictures(tmp_path / "pictures", 2)
    (folder / "bad.jpg").write_text("no picture")
    assert [speed.frames for speed in measure(folder, seconds=1, min_face_px=40, workers=1)] == [2, 2, 2]
    assert f"left out: {folder / 'bad.jpg'} is a damaged picture" in caplog.text
    for path in folder.glob("0*"):
        path.unlink()
    with pytest.raises(UsageError, match="can be decoded; give a video"):
        next(measure(folder, seconds=1, min_face_px=40))


def test_only_so_many_processes_are_measured_as_asked_for(tmp_path: Path) -> None:
    """Here by processes of their own."""
    speeds = list(itertools.islice(measure(make_pictures(tmp_path / "pictures", 4), seconds=1, min_face_px=40, workers=2), 2))
    assert [(speed.what, speed.processes, speed.frames) for speed in speeds] == [("decoding alone", 1, 4), ("tables", 2, 4)]


def test_as_many_processes_are_measured_with_annotated_copies(tmp_path: Path, asked: list[int]) -> None:
    speeds = measure(make_pictures(tmp_path / "pictures", 1), seconds=1, min_face_px=40, workers=2)
    assert [(speed.what, speed.processes) for speed in speeds] == [("decoding alone", 1), ("tables", 2), ("annotated copies", 2)]
    assert asked == [2, 2]


def test_a_folder_without_media_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no pictures or videos"):
        next(measure(tmp_path, seconds=1, min_face_px=40))


def test_memory_is_that_of_workers_not_of_what_watches_them(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        found = {}
        for here in (True, False):
            with _Monitor(tmp_path, here=here) as monitor:
                time.sleep(1)
            found[here] = monitor.peak_mb
    finally:
        child.kill()
        child.wait()
    own_mb = psutil.Process().memory_info().rss / 2**20
    assert found[True] == pytest.approx(own_mb, rel=0.1)
    assert 0 < found[False] < own_mb / 2
