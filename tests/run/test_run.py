"""Whole runs by the command line, on small real media: what is done, redone, refused, survived."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import pandas as pd
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from PIL import Image

import batchemo
from batchemo.emotion.weights import SHIPPED
from batchemo.options import merge_options
from batchemo.results.schema import PER_MEDIUM
from batchemo.run.plan import plan_run
from batchemo.run.processes import usable_cores
from batchemo.run.run import run_media
from tests.made_media import silence, write_clip, write_face_clip
from tests.running import BATCHEMO, SILENT, command_here, run_command, run_here

SAMPLES = Path(__file__).parents[2] / "sample_media"
TIMEOUT = 240


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder


def rows(results: Path) -> pd.DataFrame:
    return batchemo.load(results, table="media").set_index("media")


def tables(results: Path) -> dict[str, pd.DataFrame]:
    """All that does not depend on when and how often a run was started."""
    found: dict[str, pd.DataFrame] = {table: batchemo.load(results, table=table) for table in PER_MEDIUM}
    found["media"] = batchemo.load(results, table="media").drop(columns=["run_id", "seconds_taken"])
    return found


def assert_same(first: Path, second: Path) -> None:
    for name, table in tables(first).items():
        pd.testing.assert_frame_equal(table, tables(second)[name], obj=name)


def no_half_files(results: Path) -> None:
    for path in results.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix == ".parquet":
            pq.ParquetFile(path).read()
        elif path.suffix == ".mp4":
            with av.open(str(path)) as container:
                assert sum(1 for _ in container.decode(video=0)) > 0


# --- bad input: a row each, and nothing else is lost ---


def write_black_png(path: Path, side: int) -> None:
    """One bit a pixel, so that even a huge one is a small file."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + b"\x01\x00\x00\x00\x00"
    data = zlib.compress(bytes((side // 8 + 1) * side), 1)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def bad_media(folder: Path) -> dict[str, str]:
    """Broken files in `folder`, and the error that each must give."""
    write_face_clip(folder / "whole.mp4", frames=20)
    content = (folder / "whole.mp4").read_bytes()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video\n" * 50)
    (folder / "text.jpg").write_text("this is no picture\n" * 50)
    (folder / "cut_before_index.mp4").write_bytes(content[: len(content) // 2])
    write_clip(folder / "only_sound.mp4", [], sound=silence(1))
    faststart = folder / "faststart.mp4"
    write_face_clip(faststart, frames=20, muxer={"movflags": "faststart"})
    whole = faststart.read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) * 14 // 15])
    (folder / "no_frames.mp4").write_bytes(whole[: whole.index(b"mdat") + 4])
    faststart.unlink()
    picture = (SAMPLES / "grace_hopper.jpg").read_bytes()
    (folder / "broken.jpg").write_bytes(picture[: picture.index(b"\xff\xda")])
    write_black_png(folder / "huge.png", 30_000)
    write_black_png(folder / "nothing.png", 0)
    return {
        "empty.mp4": "empty",
        "empty.jpg": "empty",
        "text.mp4": "not_media",
        "text.jpg": "damaged",
        "cut_before_index.mp4": "not_media",
        "only_sound.mp4": "no_video",
        "truncated.mp4": "truncated",
        "no_frames.mp4": "no_frames",
        "broken.jpg": "damaged",
        "huge.png": "too_large",
        "nothing.png": "damaged",
    }


def test_bad_input_becomes_rows_and_the_rest_is_analysed(videos: Path, tmp_path: Path) -> None:
    expected = bad_media(videos)
    out = tmp_path / "results"
    ended = run_command("run", videos, "--out", out, "--json")
    assert ended.returncode == 3, ended.stderr
    found = rows(out)
    assert found.loc[list(expected), "error"].to_dict() == expected
    assert set(found.index) == {*expected, "whole.mp4"}
    for name in expected:
        assert name in ended.stderr
        assert str(videos / name) in found["message"][name]
    assert found.loc["whole.mp4", "status"] == "done"
    assert found.loc["whole.mp4", "n_frames"] == 20
    assert batchemo.load(out).groupby("media").size()["whole.mp4"] == 20
    # What could be read of the truncated clip is kept.
    kept = found.loc["truncated.mp4"]
    assert 0 < kept["n_frames_analysed"] < kept["n_frames"] == 20
    assert len(json.loads(ended.stdout)["media"]) == len(expected) + 1
    (facts,) = (json.loads(path.read_text()) for path in out.glob("runs/*/run.json"))
    assert facts["machine"]["processes"] == min(len(found), usable_cores())
    no_half_files(out)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_permissions_are_a_row(videos: Path, tmp_path: Path) -> None:
    write_face_clip(videos / "secret.mp4")
    (videos / "secret.mp4").chmod(0)
    assert run_command("run", videos, "--out", tmp_path / "results").returncode == 3
    assert rows(tmp_path / "results").loc["secret.mp4", "error"] == "unreadable"


def test_a_medium_that_cannot_be_opened_is_a_row(videos: Path, tmp_path: Path) -> None:
    # As unreadable as missing permissions, and that for root too.
    (videos / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    write_face_clip(videos / "good.mp4")
    report = run_here(videos, out=tmp_path / "results", follow_symlinks=True, annotate=False)
    assert [row.media for row in report.failed] == ["gone.mp4"]
    assert rows(tmp_path / "results")["error"].to_dict() == {"gone.mp4": "unreadable", "good.mp4": ""}


# --- wrong commands: exit 2, nothing started ---


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["no_such_folder"], "no_such_folder"),
        ([".", "--min-face-px", "3"], "min-face-px"),
        ([".", "--sample-fps", "-1"], "sample-fps"),
        ([".", "--device", "tpu"], "device"),
        ([".", "--device", "cuda:7"], "cuda:7"),
        ([".", "--decoder", "vlc"], "vlc"),
        ([".", "--weights", "no_such_file"], "no_such_file"),
        ([".", "--config", "no_such.toml"], "no_such.toml"),
        ([".", "--no-such-option"], "no-such-option"),
        ([".", "--force", "--resume"], "--resume"),
    ],
)
def test_wrong_commands_start_nothing(tmp_path: Path, arguments: list[str], word: str) -> None:
    out = tmp_path / "results"
    folder = tmp_path / "media"
    folder.mkdir()
    inputs = [str(folder) if a == "." else a for a in arguments]
    ended = command_here("run", *inputs, "--out", out)
    assert ended.returncode == 2, ended.stderr
    assert word in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not out.exists()


def test_missing_out_is_a_usage_error(tmp_path: Path) -> None:
    ended = command_here("run", tmp_path)
    assert ended.returncode == 2
    assert "--out" in ended.stderr


def test_results_that_are_not_there(tmp_path: Path) -> None:
    ended = run_command("summary", tmp_path)
    assert ended.returncode == 2
    assert "batchemo run" in ended.stderr


# --- names are data ---


NAMES = [
    "with space.mp4",
    "Grüße aus Köln.mp4",
    "smile 😀.mp4",
    'quo\'te and "double".mp4',
    "new\nline.mp4",
    "-n.mp4",
    "$(touch owned) `touch owned`; & |.mp4",
    "[bold]markup[-].mp4",
    "%41=x.mp4",
    "\x1b[31mred.mp4",
    "_hidden from pandas.mp4",
    "a" * 196 + ".mp4",
    "--help",
    "--out=elsewhere.mp4",
    "<img src=x onerror=alert(1)>.mp4",
    "<!-- &amp; ]]> <?xml?>.mp4",
    "x..\\..\\up.mp4",
    "x..%2f..%2fup.mp4",
    "${HOME}%n%s{0}.mp4",
]


def test_any_name_works(videos: Path, tmp_path: Path) -> None:
    (videos / "_sub=folder").mkdir()
    names = [*NAMES, "_sub=folder/_x.mp4", os.fsdecode(b"latin-\xe9.mp4")]
    for name in names:
        write_face_clip(videos / name, frames=2)
    out = tmp_path / "results"
    run_here(videos, out=out)
    found = rows(out)
    assert set(found.index) == {*NAMES, "_sub=folder/_x.mp4", "latin-\\xe9.mp4"}
    assert (found["status"] == "done").all()
    assert len(pd.read_parquet(out / "faces", partitioning=None)) == 2 * len(names)
    assert len(pd.read_parquet(out / "faces")) == 2 * len(names)
    assert len(list((out / "annotated").rglob("*.mp4"))) == len(names)
    assert not list(tmp_path.rglob("owned"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "videos"], "nothing is written elsewhere"
    shown = command_here("summary", out)
    assert shown.returncode == 0
    firsts = [line.split("  ")[0] for line in shown.stdout.splitlines()]
    assert firsts[1:-1] == [name.replace("\n", "\\n").replace("\x1b", "\\x1b") for name in sorted(found.index)]


# --- again or not ---


def test_only_what_changed_is_done_again(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    write_face_clip(videos / "a.mp4")
    write_face_clip(videos / "b.mp4")
    (videos / "bad.mp4").write_bytes(b"no video at all")

    def again(**flags: object) -> list[str]:
        report = run_here(videos, out=out, **flags)
        return sorted([*report.analysed, *report.redrawn])

    assert again(annotate=False) == ["a.mp4", "b.mp4", "bad.mp4"]
    assert again(annotate=False) == []
    assert again() == ["a.mp4", "b.mp4"], "annotated copies were missing"
    os.utime(videos / "a.mp4", (1, 1))
    assert again() == [], "touched, but the same content"
    write_face_clip(videos / "b.mp4", frames=4)
    assert again() == ["b.mp4"]
    assert rows(out).loc["b.mp4", "n_frames"] == 4
    assert again(uncertain_below=0.9) == ["a.mp4", "b.mp4", "bad.mp4"]
    assert again(uncertain_below=0.9, retry_failed=True) == ["bad.mp4"]
    assert again(uncertain_below=0.9, force=True, annotate=False) == ["a.mp4", "b.mp4", "bad.mp4"]
    (out / "faces" / "a.mp4.parquet").unlink()
    assert again(uncertain_below=0.9) == ["a.mp4"]
    planned = plan_run([videos], out, merge_options({}, environment={}))
    assert [medium.name for medium in planned.todo] == ["a.mp4", "b.mp4", "bad.mp4"]


def test_failed_before_is_still_a_failure(videos: Path, tmp_path: Path) -> None:
    (videos / "bad.mp4").write_bytes(b"")
    for _ in range(2):
        ended = command_here("run", videos, "--out", tmp_path / "results", "--workers", 1)
        assert ended.returncode == 3
        assert "bad.mp4" in ended.stderr
    assert "--retry-failed" in ended.stderr


def test_a_picture_that_breaks_off_is_done_and_says_so(videos: Path, tmp_path: Path) -> None:
    picture = (SAMPLES / "grace_hopper.jpg").read_bytes()
    (videos / "cut.jpg").write_bytes(picture[: len(picture) * 2 // 3])
    Image.open(SAMPLES / "grace_hopper.jpg").save(videos / "pages.tif", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    ended = run_command("run", videos, "--out", tmp_path / "results", "--no-report", "--workers", 1)
    assert ended.returncode == 0
    assert all("cut.jpg" in line for line in ended.stderr.splitlines() if "Corrupt JPEG" in line)
    found = rows(tmp_path / "results")
    assert found["status"].tolist() == ["done", "done"]
    assert found["n_faces"].tolist() == [1, 1]
    assert "damaged or cut off" in str(found["message"]["cut.jpg"])
    assert "page 1 of 2" in str(found["message"]["pages.tif"])
    shown = command_here("summary", tmp_path / "results").stdout
    for name in ("cut.jpg", "pages.tif"):
        told = f"{name}: {found['message'][name]}"
        assert f"in part {told}" in ended.stderr
        assert told in shown


def test_pictures_that_are_not_read_here_are_named_once(videos: Path, tmp_path: Path) -> None:
    for name in ("a.jxl", "b.jxl", "sub/c.jxl", "[red]d.cr2"):
        (videos / name).parent.mkdir(exist_ok=True)
        (videos / name).write_bytes(b"\xff\x0a" if name.endswith("jxl") else b"II*\0\x10\0\0\0CR\2\0")
    shutil.copy(SAMPLES / "grace_hopper.jpg", videos)
    out = tmp_path / "results"
    ended = command_here("run", videos, "--out", out, "--json", "--no-annotate", "--workers", 1)
    assert ended.returncode == 0
    reported = "Skipped: 3 JPEG XL (.jxl), 1 raw photograph (.cr2); convert them to JPEG or PNG first, for example with: djxl a.jxl a.png."
    assert ended.stderr.count(reported) == 1
    expected = [
        {"kind": "JPEG XL", "extension": ".jxl", "count": 3, "example": "djxl a.jxl a.png"},
        {"kind": "raw photograph", "extension": ".cr2", "count": 1, "example": "darktable-cli '[red]d.cr2' '[red]d'.jpg"},
    ]
    assert json.loads(ended.stdout)["passed_over"] == expected
    assert json.loads(next(out.glob("runs/*/run.json")).read_text())["passed_over"] == expected
    assert list(rows(out).index) == ["grace_hopper.jpg"]
    planned = command_here("run", videos, "--out", out, "--dry-run")
    assert reported[:-1] in planned.stderr
    given = command_here("run", videos / "a.jxl", "--out", tmp_path / "given", "--workers", 1)
    assert given.returncode == 3
    assert "a.jxl cannot be read here (JPEG XL); convert it first, for example with: djxl" in given.stderr


def test_dry_run_writes_nothing(videos: Path, tmp_path: Path) -> None:
    write_face_clip(videos / "a.mp4")
    ended = command_here("run", videos, "--out", tmp_path / "results", "--dry-run", "--json")
    assert json.loads(ended.stdout) == {"todo": ["a.mp4"], "redrawn": [], "done": [], "vanished": [], "passed_over": []}
    assert not (tmp_path / "results").exists()


def test_options_from_environment_and_file(videos: Path, tmp_path: Path) -> None:
    write_face_clip(videos / "a.mp4", frames=10)
    config = tmp_path / "options.toml"
    config.write_text("sample-fps = 5\nannotate = false\n")
    run_media([videos], tmp_path / "one", merge_options({"workers": 1}, environment={}, config=config), SILENT)
    assert rows(tmp_path / "one").loc["a.mp4", "n_frames_analysed"] == 5
    assert not (tmp_path / "one" / "annotated").exists()
    ended = command_here("run", videos, "--out", tmp_path / "two", "--config", config, "--workers", 1, BATCHEMO_SAMPLE_FPS="2")
    assert ended.returncode == 0, ended.stderr
    assert rows(tmp_path / "two").loc["a.mp4", "n_frames_analysed"] == 2


# --- killed, terminated, interrupted, locked ---


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*BATCHEMO, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def wait_until(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + TIMEOUT
    while not condition():
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.fixture
def several(videos: Path) -> Path:
    for index in range(4):
        write_face_clip(videos / f"{index}.mp4", frames=12, sound=silence(1) if index == 0 else ())
    return videos


def test_killed_and_started_again_gives_the_same_tables(several: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_here(several, out=whole)
    process = start("run", several, "--out", broken, "--workers", "1")
    wait_until(lambda: len(list(broken.glob("frames/*.parquet"))) >= 2, process)
    time.sleep(0.2)  # into the next medium
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    no_half_files(broken)
    done = len(list(broken.glob("frames/*.parquet")))
    assert len(run_here(several, out=broken).analysed) == 4 - done
    assert_same(whole, broken)
    assert not list(broken.rglob("*.part"))
    assert (rows(broken)["status"] == "done").all()


def test_tables_do_not_tell_how_many_workers_made_them(several: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run_here(several, out=one, annotate=False)
    run_here(several, out=two, annotate=False, workers=2)
    assert_same(one, two)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_ends_at_once_on_a_signal(several: Path, tmp_path: Path, sent: signal.Signals, code: int, workers: str) -> None:
    write_face_clip(several / "long.mp4", frames=400)  # or the run could end before the signal comes
    out = tmp_path / "results"
    process = start("run", several, "--out", out, "--workers", workers)
    wait_until(lambda: list(out.glob("runs/*/.heartbeats/*")), process)
    began = time.monotonic()
    process.send_signal(sent)
    _, reported = process.communicate(timeout=30)
    assert process.returncode == code, reported.decode()
    assert time.monotonic() - began < 15
    assert b"same command" in reported
    assert b"Traceback" not in reported
    assert not list(out.rglob("*.part"))
    no_half_files(out)
    assert (out / "media.parquet").is_file()


def test_a_second_run_on_the_same_folder_is_refused(videos: Path, tmp_path: Path) -> None:
    write_face_clip(videos / "a.mp4")
    out = tmp_path / "results"
    out.mkdir()
    with FileLock(out / ".batchemo.lock"):
        ended = command_here("run", videos, "--out", out)
    assert ended.returncode == 75
    assert "another run" in ended.stderr
    assert not (out / "media.parquet").exists()


# --- where results go, what is said ---


def test_results_inside_the_input_are_not_analysed(videos: Path) -> None:
    write_face_clip(videos / "a.mp4")
    for _ in range(2):
        run_here(videos, out=videos / "results")
    assert list(rows(videos / "results").index) == ["a.mp4"]


def test_nothing_to_do_says_so(videos: Path, tmp_path: Path) -> None:
    ended = command_here("run", videos, "--out", tmp_path / "results")
    assert ended.returncode == 0
    assert "No pictures or videos" in ended.stderr


def test_stdout_is_for_data_and_quiet_is_quiet(videos: Path, tmp_path: Path) -> None:
    write_face_clip(videos / "a.mp4")
    ended = run_command("run", videos, "--out", tmp_path / "results", "--workers", 1, "-q")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    ended = command_here("run", videos, "--out", tmp_path / "results", "--workers", 1, "--force")
    assert ended.stdout == ""
    assert "batchemo summary" in ended.stderr
    assert "\x1b" not in ended.stderr


def test_the_manifest_of_a_run(videos: Path, tmp_path: Path) -> None:
    write_face_clip(videos / "a.mp4")
    (videos / "bad.mp4").write_bytes(b"")
    out = tmp_path / "results"
    assert command_here("run", videos, "--out", out, "--no-annotate", "--no-report", "--workers", 1).returncode == 3
    (folder,) = (out / "runs").iterdir()
    facts = json.loads((folder / "run.json").read_text())
    assert facts["how"] == "done"
    assert facts["machine"]["processes"] == 1
    assert facts["media"]["analysed"] == 2
    assert [failure["media"] for failure in facts["failures"]] == ["bad.mp4"]
    assert {"python", "torch", "batchemo"} <= facts["versions"].keys()
    events = [json.loads(line)["event"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert events == ["started", "medium", "medium", "ended"]
    assert rows(out)["run_id"].unique().tolist() == [folder.name]


def test_doctor_finds_this_machine_able() -> None:
    ended = command_here("doctor", "--json")
    assert ended.returncode == 0, ended.stderr
    findings = {finding["part"]: finding for finding in json.loads(ended.stdout)}
    assert all(finding["ok"] for finding in findings.values() if finding["needed"])
    weights = findings["weights"]["detail"]
    assert hashlib.sha256(SHIPPED.read_bytes()).hexdigest() in weights
    assert re.search(r"accuracy \d\d\.\d% \(about \d\d% of those unseen in training\) of the 3,589 pictures of PublicTest", weights)
    assert f"model card {SHIPPED.with_name('MODEL_CARD.md')}" in weights
    assert re.match(
        r"emotions are classified in (int8|bfloat16|float32) on this CPU|.* float16 on the GPU", findings["precision"]["detail"]
    )
