"""Several machines, one folder, no coordinator: each medium is done once, and their results are one data set."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchemo
from batchemo.atomic import temporary_name
from batchemo.errors import LockedError, UsageError
from batchemo.lock import is_held, lock_path, locked
from batchemo.options import Shard, merge_options
from batchemo.records import MediaRow
from batchemo.report.summary import summarise
from batchemo.results.catalog import merge_media_rows
from batchemo.run.plan import plan_run
from tests.made_media import write_face_clip
from tests.run.test_run import rows
from tests.running import run_here

names = st.text(st.characters(exclude_categories=[]), max_size=30)  # lone surrogates too: names of files may hold them


@given(st.lists(names, max_size=20), st.integers(1, 50))
def test_every_name_is_in_exactly_one_part(found: list[str], count: int) -> None:
    for name in found:
        assert sum(Shard(index, count).holds(name) for index in range(1, count + 1)) == 1


def test_parts_are_of_like_size_and_never_change() -> None:
    many = [f"camera {n}/2026-11-{n % 30}.mp4" for n in range(4000)]
    sizes = [sum(Shard(index, 8).holds(name) for name in many) for index in range(1, 9)]
    assert sum(sizes) == 4000
    assert max(sizes) - min(sizes) < 120  # 500 each, give or take three standard deviations of chance
    # Another version of batchemo must put them where this one did, or media would be done twice or never.
    assert [name for name in ("a.mp4", "b.mp4", "c/d.jpg", "é.png") if Shard(1, 2).holds(name)] == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "1", "1/", "a/b", "-1/4", "1.5/2", "1/2/3", ""])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--shard .*must be part I of N, such as 2/8"):
        merge_options({"shard": text}, environment={})


def test_a_part_may_come_from_anywhere_and_shapes_no_table(tmp_path: Path) -> None:
    options = merge_options({}, environment={"BATCHEMO_SHARD": "2/8"})
    assert options.shard == Shard(2, 8)
    assert options.model_dump(mode="json")["shard"] == "2/8"
    assert options.shaping() == merge_options({}, environment={}).shaping()


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for index in range(5):
        write_face_clip(folder / f"{index}.mp4", frames=2)
    return folder


def test_shards_make_one_data_set(media: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_here(media, out=whole, annotate=False)
    first = run_here(media, out=parts, annotate=False, shard="1/2")
    # The other one began when the index was not there yet, and ends after the first has written it.
    second = run_here(media, out=parts, annotate=False, shard="2/2")
    assert first.analysed
    assert second.analysed
    assert sorted([*first.analysed, *second.analysed]) == [f"{index}.mp4" for index in range(5)]
    assert list(rows(parts).index) == list(rows(whole).index)
    assert summarise(parts).total == summarise(whole).total
    assert len(batchemo.load(parts)) == len(batchemo.load(whole))
    assert not plan_run([media], parts, merge_options({"annotate": False}, environment={})).todo


def test_the_shard_that_ends_last_writes_the_page(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    with locked(out, shard=Shard(2, 2)):
        first = run_here(media, out=out, annotate=False, shard="1/2")
    assert first.page is None
    last = run_here(media, out=out, annotate=False, shard="2/2")
    assert last.page is not None
    assert last.page.is_file()


def test_a_shard_leaves_what_others_have_in_work(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    theirs = [out / "faces" / ".0123456789abcdef-123.part", out / ".parts" / "video.mp4" / "00000.npz"]
    mine = temporary_name(out / "faces" / "0.mp4.parquet").name.replace(f"-{os.getpid()}", "-123")
    for path in theirs:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half a table, and a segment of a video")
    (out / "faces" / mine).write_bytes(b"of the same shard, by a process that was killed")
    shard = 1 if Shard(1, 2).holds("0.mp4") else 2
    run_here(media, out=out, annotate=False, shard=f"{shard}/2")
    assert not (out / "faces" / mine).exists()
    assert [path.exists() for path in theirs] == [True, True]
    run_here(media, out=out, annotate=False)
    assert [path.exists() for path in theirs] == [False, False], "a run that has the folder alone cleans up"


@pytest.mark.parametrize(
    ("holding", "asking", "may"),
    [
        ("1/2", "2/2", True),
        ("1/2", "1/2", False),
        ("1/2", None, False),
        (None, "1/2", False),
        ("1/2", "3/3", False),
        (None, None, False),
    ],
)
def test_who_may_write_beside_whom(media: Path, tmp_path: Path, holding: str | None, asking: str | None, may: bool) -> None:
    out = tmp_path / "results"
    with locked(out, shard=Shard.parse(holding) if holding else None):
        assert is_held(out)
        if may:
            run_here(media, out=out, annotate=False, shard=asking)
        else:
            with pytest.raises(LockedError, match=rf"another run is writing .* \(process {os.getpid()} on "):
                run_here(media, out=out, annotate=False, shard=asking)
    assert not is_held(out)
    run_here(media, out=out, annotate=False, shard=asking)


def test_those_that_wait_do_not_wait_for_each_other(tmp_path: Path) -> None:
    def work(shard: Shard | None) -> None:
        with locked(tmp_path, shard=shard, wait_seconds=20):
            at_work.append(shard)
            assert shard is not None or len(at_work) == 1
            time.sleep(0.05)
            at_work.remove(shard)
            done.append(shard)

    at_work: list[Shard | None] = []
    done: list[Shard | None] = []
    threads = [threading.Thread(target=work, args=(shard,)) for shard in (None, Shard(1, 2), Shard(2, 2), Shard(1, 3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4
    assert not is_held(tmp_path)
    assert lock_path(tmp_path, Shard(2, 8)).name == ".batchemo.2-of-8.lock"


def test_rows_of_runs_that_end_at_once_are_all_kept(tmp_path: Path) -> None:
    def add(shard: int) -> None:
        for turn in range(5):
            row = MediaRow(f"{shard}-{turn}", "", "video", "done")
            merge_media_rows(tmp_path, {row.media: row}, lacking={})

    def read() -> None:
        while any(thread.is_alive() for thread in threads):
            if (tmp_path / "media.parquet").exists():
                seen.append(len(batchemo.load(tmp_path, table="media")))

    seen: list[int] = []
    threads = [threading.Thread(target=add, args=(shard,)) for shard in range(6)]
    reader = threading.Thread(target=read)
    for thread in [*threads, reader]:
        thread.start()
    for thread in [*threads, reader]:
        thread.join()
    assert len(rows(tmp_path)) == 30
    assert seen == sorted(seen), "readers never see rows vanish"


def test_a_lost_or_damaged_index_is_made_again_from_the_tables(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    run_here(media, out=out, annotate=False)
    before = rows(out)
    for content in (b"damaged", None):
        (out / "media.parquet").unlink()
        if content is not None:
            (out / "media.parquet").write_bytes(content)
        run_here(media / "0.mp4", out=out, annotate=False)  # a medium of another name, and nothing of the others
        assert set(before.index) <= set(rows(out).index)
