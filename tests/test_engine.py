"""Workers that die: only the medium that kills them is lost."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import torch

from batchemo.engine import InProcess, Workers
from batchemo.pulse import Pulse, read_pulses
from batchemo.records import MediaRow, Medium


@dataclasses.dataclass(frozen=True)
class Work:
    """Stands in for the analysis: media called `poison` kill their worker."""

    pulses: Path
    run_id: str = "test"

    def __call__(self, medium: Medium) -> MediaRow:
        pulse = Pulse(self.pulses, medium.output)
        pulse.start()
        if medium.name.startswith("poison"):
            os.kill(os.getpid(), signal.SIGKILL)
        pulse.beat(frames=3, share=1.0)
        pulse.end()
        return MediaRow(media=medium.name, path="", kind="video", status="done", n_frames=3)


def test_a_medium_that_kills_its_worker_costs_that_medium_alone(tmp_path: Path) -> None:
    names = ["a", "poison1", "b", "c", "d", "poison2", "e", "f"]
    media = [Medium(tmp_path / name, name, name, "video") for name in names]
    rows = {row.media: row for row in Workers(2).run(Work(tmp_path), media)}  # type: ignore[arg-type]
    assert set(rows) == set(names)
    assert {name for name, row in rows.items() if row.status == "failed"} == {"poison1", "poison2"}
    assert rows["poison1"].error == "crashed"
    assert "--exclude" in rows["poison1"].message


def test_pulses_tell_what_is_in_work(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path, "folder/new\nline.mp4")
    pulse.start()
    assert [(share, output) for _, share, output in read_pulses(tmp_path)] == [(0.0, "folder/new\nline.mp4")]
    pulse.beat(frames=5, share=0.5)
    ((frames, share, _),) = read_pulses(tmp_path)
    assert frames >= 5
    assert share == 0.5
    pulse.end()
    assert [output for _, _, output in read_pulses(tmp_path)] == [""]


def test_in_this_process_too_one_thread_works_and_the_others_come_back(tmp_path: Path) -> None:
    seen: list[int] = []

    def work(medium: Medium) -> MediaRow:
        seen.append(torch.get_num_threads())
        return MediaRow(media=medium.name, path="", kind="video", status="done")

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for _ in InProcess().run(work, [Medium(tmp_path / "a", "a", "a", "video")]):  # type: ignore[arg-type]
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == [1]
