"""Workers claim GPUs by locks; the tests need no GPU."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch

from batchemo.devices import upload
from batchemo.records import Medium
from batchemo.run import processes as local
from batchemo.run.processes import count_workers, set_up_worker

Gpus = Callable[[int], None]
Start = Callable[[str], tuple[BaseProcess, int | None]]


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gpus:
    """Sets how many GPUs torch says that there are."""

    def are_there(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    monkeypatch.setattr(local, "_DRIVERS", (tmp_path,))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return are_there


def _work(pipe: Connection, device: str, there: int, folder: Path, environment: dict[str, str]) -> None:
    chosen: list[int] = []
    patch = pytest.MonkeyPatch()
    patch.setattr(torch.cuda, "is_available", lambda: there > 0)
    patch.setattr(torch.cuda, "device_count", lambda: there)
    patch.setattr(torch.cuda, "set_device", chosen.append)
    patch.setattr(local, "_DRIVERS", (folder,))
    patch.setattr(tempfile, "tempdir", str(folder))
    os.environ.clear()
    os.environ.update(environment)
    set_up_worker(device)
    set_up_worker(device)  # before each job, perhaps in another thread
    assert len(set(chosen)) <= 1
    assert len(chosen) in {0, 2}
    pipe.send(chosen[0] if chosen else None)
    pipe.recv()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Start]:
    """Starts a worker, which returns the GPU that it claimed."""
    # Not forked from this process: its threads may hold locks that no thread of the child would release.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "batchemo.run.processes"])
    started: list[BaseProcess] = []

    def start(device: str) -> tuple[BaseProcess, int | None]:
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(there, device, torch.cuda.device_count(), tmp_path, dict(os.environ)))
        process.start()
        started.append(process)
        assert here.poll(120)
        pipes.append(here)
        return process, here.recv()

    pipes: list[Connection] = []
    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_each_worker_has_a_gpu_of_its_own_until_it_dies(gpus: Gpus, worker: Start, device: str) -> None:
    gpus(2)
    workers = [worker(device) for _ in range(2)]
    assert [index for _, index in workers] == [0, 1]
    workers[0][0].kill()
    workers[0][0].join()
    assert worker(device)[1] == 0


def test_more_workers_than_gpus_share_them_evenly(gpus: Gpus, worker: Start) -> None:
    gpus(2)
    assert [worker("cuda")[1] for _ in range(5)] == [0, 1, 0, 1, 0]


def test_runs_that_see_different_gpus_do_not_mind_each_other(gpus: Gpus, worker: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert worker("cuda")[1] == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert [worker("cuda")[1] for _ in range(2)] == [0, 1]


@pytest.mark.parametrize(("device", "there"), [("cuda:1", 2), ("cpu", 2), ("auto", 0)])
def test_nothing_is_claimed_where_nothing_is_shared(gpus: Gpus, worker: Start, device: str, there: int) -> None:
    gpus(there)
    assert worker(device)[1] is None


@pytest.mark.parametrize(
    ("device", "there", "asked", "count"),
    [("cuda", 3, None, 3), ("auto", 3, None, 3), ("cuda:1", 3, None, 1), ("cuda", 3, 5, 5), ("cpu", 3, None, 2), ("auto", 0, None, 2)],
)
def test_one_worker_a_gpu(gpus: Gpus, monkeypatch: pytest.MonkeyPatch, device: str, there: int, asked: int | None, count: int) -> None:
    gpus(there)
    monkeypatch.setattr(local, "usable_cores", lambda: 2)
    media = [Medium(Path(str(n)), str(n), str(n), "image") for n in range(9)]
    assert count_workers(asked, media, device=device) == count


def test_torch_is_not_loaded_to_find_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local, "_DRIVERS", (tmp_path / "none",))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("torch was asked"))
    assert count_workers(None, [], device="auto") == 0


@pytest.mark.parametrize(("name", "pinned"), [("cpu", False), ("cuda", True)])
def test_pictures_go_to_a_gpu_from_memory_that_stays_in_place(name: str, pinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    empty, to = torch.empty, torch.Tensor.to
    asked: list[object] = []

    def make(*size: object, pin_memory: bool, **more: object) -> torch.Tensor:
        asked.append(pin_memory)
        return empty(*size, **more)  # type: ignore[call-overload]

    def move(self: torch.Tensor, device: torch.device, *, non_blocking: bool) -> torch.Tensor:
        asked.append((device.type, non_blocking))
        return to(self, "cpu")

    monkeypatch.setattr(torch, "empty", make)
    monkeypatch.setattr(torch.Tensor, "to", move)
    pictures = [np.full((4, 6, 3), shade, np.uint8) for shade in (1, 2)]
    batch = upload([picture[:, ::-1] for picture in pictures], torch.device(name))
    assert asked == [pinned, (name, True)]
    np.testing.assert_array_equal(batch.numpy(), np.stack(pictures))
