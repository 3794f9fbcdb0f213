"""Runs on media and folders that change, vanish, fill up or mean harm: nothing else is lost, and the next run goes on."""

from __future__ import annotations

import datetime
import errno
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

import batchemo
from batchemo.atomic import temporary_name
from batchemo.emotion.weights import SHIPPED, load_weights, read_weights_file, save_weights
from batchemo.errors import MediaError, StorageError
from batchemo.media.discover import find_media
from batchemo.media.file_identity import identity_of
from batchemo.options import merge_options
from batchemo.pipeline import assemble as assembly
from batchemo.pipeline.context import RunContext
from batchemo.pipeline.segments import SplitTask
from batchemo.render import annotated_copy as annotation
from batchemo.results.schema import PER_MEDIUM
from batchemo.run import run as run_module
from batchemo.run.plan import plan_run
from batchemo.run.tasks import AnalysisTask, Job
from batchemo.verify.audit import verify
from tests.made_media import shades, write_clip
from tests.running import BATCHEMO, run_command, run_here


def write_still(path: Path, shade: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((32, 32, 3), shade, np.uint8))


def names(out: Path) -> list[str]:
    return sorted(batchemo.load(out, table="media")["media"])


def files(out: Path) -> set[str]:
    """All of a results folder but the manifests of its runs."""
    found = (path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    return {name for name in found if not name.startswith(("runs/", "."))}


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    for name in ("a.png", "sub/b.png", "sub/c.png"):
        write_still(folder / name)
    return folder


# Media that vanish


def test_vanished_media_are_reported_and_pruned_when_asked(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_here(media, out=out)
    before = files(out)
    (media / "sub" / "b.png").unlink()
    report = run_here(media, out=out)
    assert (report.vanished, report.pruned, report.analysed) == (("sub/b.png",), (), ())
    assert files(out) == before
    assert names(out) == ["a.png", "sub/b.png", "sub/c.png"]
    planned = plan_run([media], out, merge_options({"prune": True}, environment={}))
    assert [row.media for row in planned.vanished] == ["sub/b.png"]
    report = run_here(media, out=out, prune=True)
    assert (report.vanished, report.pruned) == ((), ("sub/b.png",))
    assert names(out) == ["a.png", "sub/c.png"]
    assert files(out) == {name for name in before if "b.png" not in name}
    assert not verify(out).problems
    assert run_here(media, out=out, prune=True).pruned == ()


def test_folders_of_pruned_results_go_too(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_here(media, out=out)
    shutil.rmtree(media / "sub")
    assert run_here(media, out=out, prune=True).pruned == ("sub/b.png", "sub/c.png")
    assert not list(out.rglob("sub"))
    assert (out / "frames" / "a.png.parquet").is_file()


def test_what_other_runs_put_there_is_not_pruned(media: Path, tmp_path: Path) -> None:
    """Neither media of another INPUT, nor those that are excluded now."""
    out, other = tmp_path / "out", tmp_path / "other"
    write_still(other / "z.png")
    run_here(other, out=out)
    run_here(media, out=out)
    (other / "z.png").unlink()
    report = run_here(media, out=out, exclude=["a.png"], prune=True)
    assert (report.vanished, report.pruned) == ((), ())
    assert names(out) == ["a.png", "sub/b.png", "sub/c.png", "z.png"]


def test_a_drive_that_is_not_mounted_costs_no_results(media: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "out"
    run_here(media, out=out)
    before = files(out)
    shutil.rmtree(media)
    media.mkdir()
    with caplog.at_level(logging.WARNING, logger="batchemo"):
        report = run_here(media, out=out, prune=True)
    assert report.pruned == ()
    assert report.vanished == ("a.png", "sub/b.png", "sub/c.png")
    assert files(out) == before
    assert "not mounted" in caplog.text


def test_names_that_are_not_utf8_have_not_vanished(media: Path, tmp_path: Path) -> None:
    odd = media / os.fsdecode(b"\xe9.png")
    shutil.copy(media / "a.png", odd)
    (media / "\\xff.png").write_bytes(odd.read_bytes())
    out = tmp_path / "out"
    run_here(media, out=out)
    assert run_here(media, out=out, exclude=["*.png"]).vanished == ()
    odd.unlink()
    assert run_here(media, out=out, prune=True).pruned == ("\\xe9.png",)
    assert not verify(out).problems


def test_a_medium_that_killed_its_worker_vanishes_too(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_here(media, out=out)
    row = batchemo.load(out, table="media").iloc[0].to_dict() | {
        "media": "killer.mp4",
        "path": str(media / "killer.mp4"),
        "status": "failed",
    }
    pd.concat([batchemo.load(out, table="media"), pd.DataFrame([row])]).to_parquet(out / "media.parquet", index=False)
    assert run_here(media, out=out, prune=True).pruned == ("killer.mp4",)
    assert names(out) == ["a.png", "sub/b.png", "sub/c.png"]


def test_what_kills_every_worker_is_not_tried_in_every_run(media: Path, tmp_path: Path) -> None:
    """Nor is half a file of its worker left, whatever becomes of the others."""
    out = tmp_path / "out"
    weights = read_weights_file(SHIPPED)
    options = merge_options({}, environment={})
    (killer, *others) = find_media([media], out=out)
    for place in (out / "frames" / killer.output, out / "frames" / others[0].output):
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary_name(place.with_name(f"{place.name}.parquet")).write_bytes(b"half")
    task = AnalysisTask(RunContext(out, options, "run-1", weights.labels, weights.sha256), tmp_path)
    outcome = task.write_failure(killer, MediaError("crashed", f"{killer.path} killed its worker at each try"))
    assert (outcome.row.status, outcome.row.error, outcome.row.sha256 != "") == ("failed", "crashed", True)
    assert [path.parent.name for path in out.rglob("*.part")] == [Path("frames", others[0].output).parent.name]
    planned = plan_run([media], out, options)
    assert [row.error for row in planned.done] == ["crashed"]
    assert len(planned.todo) == len(others)
    assert not run_here(media, out=out, retry_failed=True).failed


@pytest.mark.needs("decord")
def test_who_was_in_work_when_a_worker_died_has_the_rows_that_nobody_disturbed(media: Path, tmp_path: Path) -> None:
    """The two decoders' greys differ: only what has ended a worker alone, too, is read by the other one."""
    out, weights = tmp_path / "out", read_weights_file(SHIPPED)
    write_clip(media / "clip.mp4", shades(6, (32, 32), step=6), rate=10)
    clip, still = (next(each for each in find_media([media], out=out) if each.kind == kind) for kind in ("video", "image"))

    def task(**flags: Any) -> AnalysisTask:
        return AnalysisTask(RunContext(out, merge_options(flags, environment={}), "run-1", weights.labels, weights.sha256), tmp_path)

    done = [task()(Job(clip, deaths=deaths)) for deaths in range(3)]
    assert [each[0].row.decoder for each in done if isinstance(each, tuple)] == ["decord", "decord", "pyav"]
    assert (task().max_attempts(Job(clip)), task().max_attempts(Job(still)), task(decoder="pyav").max_attempts(Job(clip))) == (3, 2, 2)
    assert task().max_attempts(Job(clip, SplitTask())) == 2


def test_media_parquet_is_made_again_from_the_tables(media: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    write_still(other / "z.png")
    run_here(other, out=out)
    run_here(media, out=out)
    before = (out / "media.parquet").read_bytes()
    (out / "media.parquet").unlink()
    run_here(media, out=out)
    assert (out / "media.parquet").read_bytes() == before


def test_an_annotated_copy_of_what_was_there_before_does_not_stay(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_here(media, out=out)
    copy = out / "annotated" / "a.png.jpg"
    assert copy.is_file()
    (media / "a.png").write_bytes(b"broken")
    assert [row.media for row in run_here(media, out=out).failed] == ["a.png"]
    assert not copy.exists()
    write_still(media / "sub" / "b.png", 200)
    run_here(media, out=out, annotate=False)
    assert not (out / "annotated" / "sub" / "b.png.jpg").exists()
    assert (out / "annotated" / "sub" / "c.png.jpg").is_file()
    assert not verify(out).problems


def test_an_annotated_copy_of_what_other_weights_saw_does_not_stay(media: Path, tmp_path: Path) -> None:
    out, weights = tmp_path / "out", tmp_path / "other.safetensors"
    shipped = load_weights()
    save_weights(weights, shipped.network, labels=shipped.labels, temperature=2 * shipped.temperature, figures=shipped.figures)
    run_here(media, out=out)
    run_here(media, out=out, annotate=False, force=True)
    assert len(list((out / "annotated").rglob("*.jpg"))) == 3
    run_here(media, out=out, annotate=False, weights=weights)
    assert not list((out / "annotated").rglob("*.jpg"))
    assert len(run_here(media, out=out, weights=weights).redrawn) == 3
    assert len(list((out / "annotated").rglob("*.jpg"))) == 3


# The disk and the clock


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_reported_and_the_run_goes_on(media: Path, small_disk: Path, tmp_path: Path) -> None:
    out = small_disk / "out"
    run_here(media, out=out)
    whole = files(out)
    shutil.rmtree(out)
    noise = np.random.default_rng(1).integers(0, 255, (400, 400, 3), np.uint8)
    cv2.imwrite(str(media / "big.png"), noise)
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        file.truncate(300_000)
        os.posix_fallocate(file.fileno(), 0, 300_000)
    ended = run_command("run", media, "--out", out, "--workers", 2)
    assert ended.returncode == 74, ended.stderr
    assert f"no space is left for {out} (look with: df -h {out})" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(out.rglob("*.part"))
    for line in (path for path in out.rglob("log.jsonl")):
        for text in line.read_text().splitlines():
            json.loads(text)
    filler.unlink()
    assert not run_here(media, out=out).failed
    assert files(out) > whole
    assert not verify(out).problems


def test_a_disk_that_refuses_is_no_failure_of_the_medium(media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(tmp_path / "out" / "faces"))

    with monkeypatch.context() as patch:
        patch.setattr(annotation, "write_jpeg", refuse)
        with pytest.raises(StorageError, match=r"out/faces cannot be written \(Input/output error\).*The same command goes on"):
            run_here(media, out=tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.part"))
    assert not run_here(media, out=tmp_path / "out").failed


def test_results_may_lie_on_other_file_systems(media: Path, small_disk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for place in ("faces", "annotated"):
        (small_disk / place).mkdir()
        (out / place).symlink_to(small_disk / place)
    (small_disk / "faces" / ".0123456789abcdef-1.part").touch()
    run_here(media, out=out)
    assert not list(small_disk.rglob("*.part"))
    assert (small_disk / "annotated" / "sub" / "b.png.jpg").is_file()
    assert not verify(out).problems


def test_a_clock_that_goes_back(media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    os.utime(media / "a.png", (4e9, 4e9))  # from the year 2096
    run_here(media, out=out)

    class Yesterday(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Yesterday:
            return cls(1999, 12, 31, tzinfo=tz)

    monkeypatch.setattr(datetime, "datetime", Yesterday)
    write_still(media / "new.png")
    os.utime(media / "new.png", (1, 1))
    assert run_here(media, out=out).analysed == ("new.png",)
    assert run_here(media, out=out).analysed == ()
    assert len(list((out / "runs").iterdir())) == 3
    assert not verify(out).problems


# Media that vanish while they are read


def test_a_medium_that_vanishes_before_it_is_opened(media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(media / "clip.mp4", shades(6, (32, 32), step=6), rate=10)

    def taken(path: Path) -> dict[str, Any]:
        found = identity_of(path)
        if path.name in ("a.png", "clip.mp4"):
            path.unlink()
        return found

    monkeypatch.setattr(assembly, "identity_of", taken)
    report = run_here(media, out=tmp_path / "out")
    assert {row.media: row.error for row in report.failed} == {"a.png": "unreadable", "clip.mp4": "unreadable"}
    assert all("not there any more" in row.message for row in report.failed)
    assert sorted(names(tmp_path / "out")) == ["a.png", "clip.mp4", "sub/b.png", "sub/c.png"]


# Runs side by side, and SIGTERM


def command(*arguments: object) -> list[str]:
    return [*BATCHEMO, *map(str, arguments)]


def test_of_two_runs_at_once_one_works_and_the_other_waits_or_goes(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for index in range(6):
        write_still(media / f"more{index}.png", index)
    starts = [command("run", media, "--out", out, "--workers", 1, *more) for more in ((), ("--wait", 120))]
    runs = [subprocess.Popen(each, stderr=subprocess.PIPE, text=True) for each in starts]
    messages = [each.communicate(timeout=240)[1] for each in runs]
    assert runs[1].returncode == 0, messages[1]
    assert runs[0].returncode in (0, 75), messages[0]
    if runs[0].returncode == 75:
        assert f"process {runs[1].pid} on" in messages[0]
    assert len(names(out)) == 9
    assert not verify(out).problems


def wait_for(condition: Callable[[], object], process: subprocess.Popen[Any]) -> None:
    limit = time.monotonic() + 120
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_a_run_outlives_the_shell_that_started_it(media: Path, tmp_path: Path) -> None:
    """As after a logout, in the midst of a medium."""
    out = tmp_path / "out"
    for index in range(3):
        write_clip(media / f"{index}.mp4", shades(40, (32, 32), step=6), rate=10)
    typed = shlex.join(command("run", media, "--out", out, "--workers", 1))
    until = f"until ls {shlex.quote(str(out))}/runs/*/.heartbeats/*; do sleep 0.02; done"
    subprocess.run(["sh", "-c", f"{typed} & {until}"], check=True, start_new_session=True, capture_output=True)
    limit = time.monotonic() + 120
    while not list(out.glob("runs/*/run.json")) or "ended" not in json.loads(next(out.glob("runs/*/run.json")).read_text()):
        assert time.monotonic() < limit
        time.sleep(0.1)
    assert len(names(out)) == 6


def test_sigterm_as_systemd_sends_it(tmp_path: Path) -> None:
    """To the parent and its workers at once; nothing is half written, and the next run ends what is left."""
    folder, out = tmp_path / "media", tmp_path / "out"
    folder.mkdir()
    for index in range(4):
        write_clip(folder / f"{index}.mp4", shades(40, (32, 32), step=6), rate=10)
    process = subprocess.Popen(command("run", folder, "--out", out, "--workers", 2), stderr=subprocess.PIPE, start_new_session=True)
    wait_for(lambda: list(out.glob("runs/*/.heartbeats/*")), process)
    os.killpg(process.pid, signal.SIGTERM)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 143, messages.decode()
    assert b"Traceback" not in messages
    assert not list(out.rglob("*.part"))
    assert not list(out.glob("runs/*/.heartbeats"))
    assert not run_here(folder, out=out).failed
    assert not verify(out).problems
    assert all(len(list((out / table).glob("*.parquet"))) == 4 for table in PER_MEDIUM)


def test_a_run_leaves_alone_what_the_one_before_writes_for_the_page(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_here(media, out=out)
    page = temporary_name(out / "report" / "index.html")
    with FileLock(out / run_module._PAGE_LOCK):
        page.write_text("half a page")
        following = threading.Thread(target=run_here, args=(media,), kwargs={"out": out})
        following.start()
        time.sleep(0.5)
        assert page.exists()
    following.join(60)
    assert not following.is_alive()
    assert not page.exists()
