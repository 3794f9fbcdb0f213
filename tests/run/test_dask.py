"""A Dask scheduler and two workers on this machine: the results of a local run, whichever worker or client dies meanwhile."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest

import batchemo
from batchemo.emotion.weights import SHIPPED, read_weights_file
from batchemo.errors import ClusterError, UsageError
from batchemo.options import RunOptions, merge_options
from batchemo.pipeline.context import RunContext
from batchemo.records import MediaRow, Medium
from batchemo.results.schema import Table
from batchemo.run.heartbeat import read_heartbeats
from batchemo.run.processes import Engine, InProcessEngine
from batchemo.run.scheduler import JobQueue
from tests.media.test_segments import InShortSegments, make_video
from tests.needs import need
from tests.run.work import Work
from tests.running import command_here

need("distributed")


from batchemo.run import dask as dask_engine  # noqa: E402
from batchemo.run.dask import DaskEngine  # noqa: E402
from tests.run.dask_work import TorchlessCall  # noqa: E402

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample_media"
TABLES: tuple[Table, ...] = ("faces", "frames", "tracks", "episodes")


def wait_until(is_so: Callable[[], bool], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@contextlib.contextmanager
def started(command: str, *options: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
    }
    # Workers must not need our working folder.
    with log.open("wb") as output:
        arguments = [sys.executable, "-m", f"distributed.cli.dask_{command}", *options]
        process = subprocess.Popen(arguments, env=environment, cwd=log.parent, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def address_in(file: Path) -> str:
    """The address in a scheduler's file; empty while that is missing, or not written to its end."""
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads(file.read_text())["address"])
    return ""


@contextlib.contextmanager
def scheduler_in(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    file = folder / "scheduler.json"
    options = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    with started("scheduler", *options, log=folder / "scheduler.log") as process:
        wait_until(lambda: bool(address_in(file)))
        yield process, address_in(file)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("cluster")
    with scheduler_in(folder) as (_, address):
        options = (address, "--nthreads", "1", "--nworkers", "2", "--no-dashboard", "--local-directory", str(folder))
        with started("worker", *options, log=folder / "workers.log"):
            yield address


def dask(address: str, *, timeout_s: float = 300.0) -> DaskEngine:
    return DaskEngine(address, workers=None, device="cpu", timeout_s=timeout_s, max_memory_mb=None)


# The real analysis


def analysed(out: Path, media: list[Medium], engine: Engine, **options: object) -> list[MediaRow]:
    heartbeats = out / "heartbeats"
    heartbeats.mkdir(parents=True)
    weights = read_weights_file(SHIPPED)
    context = RunContext(out, RunOptions.model_validate({"device": "cpu", **options}), "test", weights.labels, weights.sha256)
    task = InShortSegments(context, heartbeats)
    return sorted((outcome.row for outcome in engine.run(task, media)), key=lambda row: row.media)


def assert_same(one: Path, other: Path) -> None:
    for table in TABLES:
        first, second = batchemo.load(one, table=table), batchemo.load(other, table=table)
        assert len(first)
        pd.testing.assert_frame_equal(first, second, check_exact=True)


def facts(rows: list[MediaRow]) -> list[dict[str, object]]:
    return [{name: value for name, value in row.as_dict().items() if name != "seconds_taken"} for row in rows]


def test_many_media_give_the_rows_of_a_local_run(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SAMPLES)
    names = sorted(path.name for path in SAMPLES.glob("*.jpg"))
    media = [Medium(Path(name), name, name, "image") for name in names]
    media += [Medium(make_video(tmp_path / name, options={}), name, name, "video") for name in ("a.mp4", "b.mp4")]
    options = {"annotate": False, "sample_fps": 6.0}
    there = analysed(tmp_path / "there", media, dask(cluster), **options)
    here = analysed(tmp_path / "here", media, InProcessEngine(), **options)
    assert {row.status for row in here} == {"done"}
    assert facts(there) == facts(here)
    assert_same(tmp_path / "there", tmp_path / "here")


def test_one_video_is_shared_and_gives_the_rows_of_a_local_run(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = Medium(make_video(tmp_path / "video.mp4", options={"bf": "2"}), "video.mp4", "video.mp4", "video")
    who: set[int] = set()
    complete = JobQueue.complete

    def completing(*arguments: Any) -> Any:
        who.update(beat.pid for beat in read_heartbeats(tmp_path / "there" / "heartbeats"))
        return complete(*arguments)

    monkeypatch.setattr(JobQueue, "complete", completing)
    there = analysed(tmp_path / "there", [video], dask(cluster), decoder="pyav")
    here = analysed(tmp_path / "here", [video], InProcessEngine(), decoder="pyav")
    assert there[0].status == "done"
    assert facts(there) == facts(here)
    assert_same(tmp_path / "there", tmp_path / "here")
    assert (tmp_path / "there" / "annotated" / "video.mp4.mp4").stat().st_size > 1000
    assert len(who - {os.getpid()}) == 2


# Workers that die


def rows_of(folder: Path, names: list[str], engine: DaskEngine) -> dict[str, MediaRow]:
    for name in names:
        (folder / name).touch()
    heartbeats = folder / "heartbeats"
    heartbeats.mkdir()
    media = [Medium(folder / name, name, name, "video") for name in names]
    with mock.patch.object(dask_engine, "RemoteCall", TorchlessCall), mock.patch.object(dask_engine, "_POLL_SECONDS", 0.2):
        return {outcome.row.media: outcome.row for outcome in engine.run(Work(heartbeats), media)}


def test_a_worker_that_is_killed_costs_a_retry(cluster: str, tmp_path: Path) -> None:
    killed = []

    def kill() -> None:
        wait_until((tmp_path / "heartbeats").is_dir)
        wait_until(lambda: any(beat.output == "pause" for beat in read_heartbeats(tmp_path / "heartbeats")))
        (beat,) = (beat for beat in read_heartbeats(tmp_path / "heartbeats") if beat.output == "pause")
        os.kill(beat.pid, signal.SIGKILL)
        killed.append(beat.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    rows = rows_of(tmp_path, ["a", "b", "pause", "c", "d"], dask(cluster))
    killer.join()
    assert len(killed) == 1
    assert {name: row.status for name, row in rows.items()} == dict.fromkeys(["a", "b", "pause", "c", "d"], "done")


def test_a_medium_that_kills_its_workers_costs_that_medium_alone(cluster: str, tmp_path: Path) -> None:
    names = ["a", "poison", "b", "once", "c", "d"]
    rows = rows_of(tmp_path, names, dask(cluster))
    assert {name: row.error for name, row in rows.items()} == dict.fromkeys(names, "") | {"poison": "crashed"}
    assert rows["poison"].message.endswith("; leave it out with --exclude")


def test_a_medium_that_hangs_fails_after_its_time(cluster: str, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, ["a", "slow", "b"], dask(cluster, timeout_s=0.5))
    assert {name: row.error for name, row in rows.items()} == {"a": "", "b": "", "slow": "timeout"}
    assert "no progress within 0.5 s, at each try; allow more with --timeout-s, or leave it out with --exclude" in rows["slow"].message


CLIENT = """
import sys
from pathlib import Path
from tests.run.test_dask import dask, rows_of
rows_of(Path(sys.argv[1]), ["long-a", "long-b", "long-c", "long-d"], dask(sys.argv[2]))
"""


def test_workers_leave_a_run_that_was_killed_and_serve_the_next(cluster: str, tmp_path: Path) -> None:
    dead, next_one = tmp_path / "dead", tmp_path / "next"
    dead.mkdir()
    next_one.mkdir()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", CLIENT, str(dead), cluster], env=environment) as client:
        wait_until((dead / "heartbeats").is_dir)
        wait_until(lambda: sum(beat.frames > 1 for beat in read_heartbeats(dead / "heartbeats")) == 2)
        client.kill()
    killed = time.monotonic()
    rows = rows_of(next_one, ["a", "b", "c"], dask(cluster))
    assert {row.status for row in rows.values()} == {"done"}
    assert time.monotonic() - killed < 30, "the media of the run that was killed take a minute"
    workers = {beat.pid for beat in read_heartbeats(dead / "heartbeats")}
    assert {beat.pid for beat in read_heartbeats(next_one / "heartbeats")} <= workers, "no worker has had to die for it"


# A cluster that is not there, or not right


def test_a_worker_without_the_folders_is_reported(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with (tmp_path / "a").open() as file:
        ours = 200  # a file that this process has and workers have not
        os.dup2(file.fileno(), ours)
    try:
        medium = Medium(Path(f"/proc/self/fd/{ours}"), "a", "a", "image")
        with pytest.raises(ClusterError, match=r"does not see /proc/self/fd/200; every worker needs the folders"):
            list(dask(cluster).run(Work(tmp_path), [medium]))
    finally:
        os.close(ours)


def test_a_cluster_without_batchemo_is_told(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("from tests.run.work import Work\n\n\nclass Unknown(Work):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    unknown = importlib.import_module("only_here").Unknown
    (tmp_path / "a").touch()
    with pytest.raises(ClusterError, match=r"cannot import batchemo \(No module named 'only_here'\); install version"):
        list(dask(cluster).run(unknown(tmp_path), [Medium(tmp_path / "a", "a", "a", "image")]))


def test_a_scheduler_that_is_not_there_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_engine, "_CONNECT_SECONDS", 0.5)
    with pytest.raises(ClusterError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9; start one there with: dask scheduler"):
        rows_of(tmp_path, ["a"], dask("tcp://127.0.0.1:9"))


def test_a_scheduler_that_goes_ends_the_run_and_the_same_command_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "batchemo", "run", str(SAMPLES / "eileen_collins.jpg"), "--out", str(out), "--no-report"]
    with scheduler_in(tmp_path) as (scheduler, address):
        there = [*command, "--engine", "dask", "--scheduler", address]
        with subprocess.Popen(there, cwd=ROOT, stderr=subprocess.PIPE, text=True) as run:
            assert run.stderr is not None
            assert "no workers for this; waiting. Start one on each core or GPU with: dask worker tcp://" in run.stderr.readline()
            scheduler.kill()
            message = run.stderr.read()
            assert run.wait(60) == 1
    assert message.startswith(f"batchemo: the scheduler at {address} has gone; start it and its workers again")
    assert message.count("\n") == 1
    assert command_here(*command[3:], "--workers", "1").returncode == 0
    assert len(batchemo.load(out))


@pytest.mark.parametrize(
    ("flags", "message"),
    [({"scheduler": "tcp://a:1"}, "--scheduler tcp://a:1 is for --engine dask; give both"), ({"scheduler": "a:1"}, "must be like tcp://")],
)
def test_options_of_the_cluster_are_checked_first(flags: dict[str, str], message: str, tmp_path: Path) -> None:
    from batchemo.run.plan import plan_run

    with pytest.raises(UsageError, match=message):
        plan_run([SAMPLES], tmp_path / "out", merge_options(flags, environment={}, default_file=tmp_path / "none"))
