"""Workers that die: only the medium that kills them is lost."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from batchemo.errors import MediaError
from batchemo.pipeline.segmented_video import SegmentedVideo
from batchemo.pipeline.segments import AnalyseTask, SegmentTask, SegmentTaskResult, SplitTask
from batchemo.records import MediaKind, MediaRow, Medium, MediumOutcome, Segment
from batchemo.run import processes as local
from batchemo.run.heartbeat import HeartbeatWriter, IsWanted, read_heartbeats
from batchemo.run.processes import InProcessEngine, ProcessEngine, choose_engine
from batchemo.run.scheduler import group_jobs
from batchemo.run.tasks import Job, Outcomes
from tests.run.work import Work, begin


@pytest.fixture(autouse=True)
def quick_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_become_worker", begin)


def rows_of(folder: Path, names: list[str], *, kind: MediaKind = "video", **limits: Any) -> dict[str, MediaRow]:
    media = [Medium(folder / name, name, name, kind) for name in names]
    workers = ProcessEngine(2, **{"timeout_s": 300.0, "max_memory_mb": None, **limits})
    return {outcome.row.media: outcome.row for outcome in workers.run(Work(folder), media)}


def test_a_medium_that_kills_its_worker_costs_that_medium_alone(tmp_path: Path) -> None:
    names = ["a", "poison1", "b", "c", "d", "poison2", "e", "f"]
    rows = rows_of(tmp_path, names)
    assert set(rows) == set(names)
    assert {name for name, row in rows.items() if row.status == "failed"} == {"poison1", "poison2"}
    assert rows["poison1"].error == "crashed"
    assert rows["poison1"].message.endswith("; leave it out with --exclude")


def test_a_medium_that_kills_its_worker_is_tried_as_often_as_it_may_be(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, ["a", "once", "often", "b"])
    assert {row.status for row in rows.values()} == {"done"}
    assert len(rows) == 4


def test_a_file_that_kills_whoever_looks_for_its_segments_costs_itself_alone(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, ["poison"])
    assert (rows["poison"].status, rows["poison"].error) == ("failed", "crashed")


def test_pictures_that_are_worked_on_together_cost_each_other_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"{number}" for number in range(100)]
    names[3], names[30], names[50], names[97] = "poison", "slow", "refused", "once"
    rows = rows_of(tmp_path, names, kind="image", timeout_s=2.0)
    assert sorted(rows) == sorted(names)
    failed = {name: row.error for name, row in rows.items() if row.status == "failed"}
    assert failed == {"poison": "crashed", "slow": "timeout", "refused": "damaged"}
    together = [int(row.run_id) for row in rows.values() if row.status == "done"]
    assert max(together) > 4
    assert "a worker died; trying 0 and the 11 pictures with it again, each by itself" in caplog.text
    assert rows["98"].run_id == "1"  # towards the end no worker waits for others


def test_pictures_are_worked_on_together_in_this_process_too(tmp_path: Path) -> None:
    kinds: list[MediaKind] = ["image"] * 20
    kinds += ["video", "image", "video", "video"]
    media = [Medium(tmp_path / str(number), str(number), str(number), kind) for number, kind in enumerate(kinds)]
    jobs = list(group_jobs(media))
    assert [medium for job in jobs for medium in job.media] == media
    assert [len(job.media) for job in jobs] == [16, 4, 1, 1, 1, 1]
    rows = [outcome.row for outcome in InProcessEngine().run(Work(tmp_path), media)]
    assert [row.media for row in rows] == [medium.name for medium in media]


def test_only_who_asks_for_one_worker_has_no_wall(tmp_path: Path) -> None:
    media = [Medium(tmp_path / "a.jpg", "a.jpg", "a.jpg", "image")]
    limits: dict[str, Any] = {"device": "cpu", "timeout_s": 300.0, "max_memory_mb": None}
    assert isinstance(choose_engine(None, media, **limits), ProcessEngine)
    assert isinstance(choose_engine(2, media, **limits), ProcessEngine)
    assert isinstance(choose_engine(1, media, **limits), InProcessEngine)


def test_a_medium_that_hangs_fails_after_its_time(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, ["a", "slow", "b"], timeout_s=2.0)
    assert {name: (row.status, row.error) for name, row in rows.items()} == {
        "a": ("done", ""),
        "b": ("done", ""),
        "slow": ("failed", "timeout"),
    }
    assert "no progress within 2 s, at each try; allow more with --timeout-s, or leave it out with --exclude" in rows["slow"].message


def test_a_medium_that_takes_too_much_memory_fails(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, ["a", "greedy", "b"], max_memory_mb=400)
    assert {name: (row.status, row.error) for name, row in rows.items()} == {
        "a": ("done", ""),
        "b": ("done", ""),
        "greedy": ("failed", "memory"),
    }
    assert "more than 400 MB" in rows["greedy"].message


IDLE = """
import sys, time
from pathlib import Path
from batchemo.run.processes import ProcessEngine
from batchemo.records import Medium
from tests.run.work import Work

folder = Path(sys.argv[1])
names = ["slow", "a", "b"]
media = [Medium(folder / name, name, name, "video") for name in names]
for _ in ProcessEngine(2, timeout_s=300.0, max_memory_mb=None).run(Work(folder), media):
    print("done", flush=True)
"""


def test_workers_end_with_their_parent_also_those_that_wait(tmp_path: Path) -> None:
    command = [sys.executable, "-c", IDLE, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True) as parent:
        assert parent.stdout is not None
        assert [parent.stdout.readline() for _ in range(2)] == ["done\n"] * 2
        workers = psutil.Process(parent.pid).children(recursive=True)
        assert len(workers) >= 2
        parent.kill()
        _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


@dataclasses.dataclass(frozen=True)
class SegmentedVideos(Work):
    """Videos in ten parts each, of which that with the number 1 of `bad.mp4` cannot be read;
    the others take seconds. Those of `good.mp4` take a moment and want its file."""

    def __call__(self, job: Job, *, wanted: IsWanted = lambda: True) -> SegmentTaskResult:
        assert job.step is not None
        if isinstance(job.step, SplitTask):
            return SegmentTaskResult(None, {}, tuple(map(Segment, range(10))))
        folder = self.heartbeats.parent
        heartbeat = HeartbeatWriter(self.heartbeats, job.medium.output, job.step_name, wanted=wanted)
        heartbeat.start()
        with (folder / "begun").open("a") as file:
            file.write(f"{job.medium.name} {job.step_name}\n")
        if job.medium.name == "bad.mp4" and job.step.segment.number == 1:
            raise MediaError("damaged", "bad.mp4 is damaged")
        for _ in range(40 if job.medium.name == "bad.mp4" else 1):
            time.sleep(0.1)
            heartbeat.beat()
        if job.medium.name == "bad.mp4":
            (folder / f"ended {job.step_name}").touch()
        (folder / job.medium.name).read_bytes()
        heartbeat.end()
        return SegmentTaskResult(None, {})

    def segmented_video(self, medium: Medium, segments: Sequence[Segment], *, ahead: int) -> SegmentedVideo:
        assert len(segments) == 10
        assert ahead > 0
        return cast("SegmentedVideo", VideoOfTen(medium, self.heartbeats.parent))


class VideoOfTen:
    """Stands in for a `SegmentedVideo`."""

    share = 0.0

    def __init__(self, medium: Medium, folder: Path) -> None:
        self.medium, self.failed = medium, False
        self._file = folder / medium.name
        self._file.touch()
        self._steps = [AnalyseTask(Segment(number), {}) for number in range(10)]
        self._back = 0

    def next_task(self) -> SegmentTask | None:
        return self._steps.pop(0) if self._steps else None

    def take(self, _step: SegmentTask, _done: SegmentTaskResult) -> MediumOutcome | None:
        self._back += 1
        return MediumOutcome(MediaRow(self.medium.name, "", "video", "done"), {}) if self._back == 10 else None

    def fail(self, error: MediaError) -> MediumOutcome:
        self.failed = True
        self._file.unlink()
        return MediumOutcome(MediaRow(self.medium.name, "", "video", "failed", error=error.kind), {})

    def remove_segments(self) -> None:
        pass

    def abandon(self) -> None:
        raise AssertionError("the run has broken off")


def test_when_a_step_of_a_video_fails_its_others_are_cancelled(tmp_path: Path) -> None:
    heartbeats = tmp_path / "heartbeats"
    heartbeats.mkdir()
    media = [Medium(tmp_path / name, name, name, "video") for name in ("bad.mp4", "good.mp4")]
    outcomes = ProcessEngine(3, timeout_s=60, max_memory_mb=None).run(SegmentedVideos(heartbeats), media)
    assert {outcome.row.media: outcome.row.status for outcome in outcomes} == {"bad.mp4": "failed", "good.mp4": "done"}
    begun = [line.split()[0] for line in (tmp_path / "begun").read_text().splitlines()]
    assert begun.count("good.mp4") == 10
    assert begun.count("bad.mp4") < 6  # of as many that were handed out
    assert list(tmp_path.glob("ended*")) == []


def test_heartbeats_say_what_is_running(tmp_path: Path) -> None:
    heartbeat = HeartbeatWriter(tmp_path, "folder/new\nline.mp4")
    heartbeat.start()
    assert [(beat.share, beat.output) for beat in read_heartbeats(tmp_path)] == [(0.0, "folder/new\nline.mp4")]
    heartbeat.beat(frames=5, share=0.5)
    (beat,) = read_heartbeats(tmp_path)
    assert beat.frames >= 5
    assert beat.share == 0.5
    heartbeat.end()
    assert [beat.output for beat in read_heartbeats(tmp_path)] == [""]


def test_videos_that_workers_share_each_have_a_heartbeat(tmp_path: Path) -> None:
    HeartbeatWriter(tmp_path, "mine").start()
    for output, share in (("one", 0.25), ("two", 0.5), ("one", 0.75)):
        HeartbeatWriter(tmp_path, output, joint=True).start(share)
    beats = list(read_heartbeats(tmp_path))
    assert sorted((beat.output, beat.share) for beat in beats) == [("mine", 0.0), ("one", 0.75), ("two", 0.5)]
    assert {beat.pid for beat in beats} == {os.getpid()}


def test_in_this_process_too_one_thread_works_and_the_others_come_back(tmp_path: Path) -> None:
    import torch

    seen: list[int] = []

    def work(job: Job) -> Outcomes:
        seen.append(torch.get_num_threads())
        return (MediumOutcome(MediaRow(media=job.medium.name, path="", kind="video", status="done"), {}),)

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for _ in InProcessEngine().run(work, [Medium(tmp_path / "a", "a", "a", "video")]):  # type: ignore[arg-type]
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == [1]
