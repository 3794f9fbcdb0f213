"""The summary counts, sorts and draws the rows of the tables; lines are cut only for terminals."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from batchemo.cli import summary as summary_table
from batchemo.errors import UsageError
from batchemo.records import FrameResult, MediaRow
from batchemo.report.summary import STEPS, Summary, summarise
from batchemo.results.paths import table_path
from batchemo.results.schema import MEDIA, write_table
from tests.made_tables import frame_result, probabilities_of, write_tables

HOSTILE = "[bold]a\n\x1b[31m.mp4"


def results_of(folder: Path, media: dict[str, list[FrameResult]], **more: MediaRow) -> Path:
    rows = []
    for name, frames in media.items():
        write_tables(folder, name.replace("\n", "_"), frames=frames)
        faces = sum(len(frame.faces) for frame in frames)
        facts: dict[str, Any] = {"n_frames": len(frames), "n_frames_analysed": len(frames), "n_faces": faces, "n_tracks": 1}
        rows.append(MediaRow(name, f"/{name}", "video", "done", duration_s=len(frames) / 25, **facts))
    write_table(pa.Table.from_pylist([row.as_dict() for row in (*rows, *more.values())], schema=MEDIA), table_path(folder, "media"))
    return folder


@pytest.fixture
def found(tmp_path: Path) -> Summary:
    """Two seconds happy, then two sad; no face, then uncertain fear; a failed medium."""
    return summarise(
        results_of(
            tmp_path,
            {
                "b.mp4": [frame_result(i, [probabilities_of("happy" if i < 50 else "sad", 0.9)]) for i in range(100)],
                "a.mp4": [frame_result(i, []) for i in range(24)]
                + [frame_result(i, [probabilities_of("fear", 0.4)]) for i in range(24, 48)],
            },
            bad=MediaRow("c.mp4", "/c.mp4", "video", "failed", error="empty", message="/c.mp4 is empty"),
        )
    )


def test_figures_of_each_medium_and_of_all(found: Summary) -> None:
    a, b, c = found.media
    assert [medium.media for medium in found.media] == ["a.mp4", "b.mp4", "c.mp4"]
    assert (b.count.frames, b.count.faces, b.count.uncertain, b.count.duration_s) == (100, 100, 0, 4.0)
    assert {name: share for name, share in b.count.shares.items() if share} == {"happy": 0.5, "sad": 0.5}
    assert (a.count.faces, a.count.uncertain, a.count.leading) == (24, 24, "")
    assert (c.status, c.message, c.count.faces) == ("failed", "/c.mp4 is empty", 0)
    assert (found.total.faces, found.total.uncertain, found.total.frames) == (124, 24, 148)
    assert sum(found.total.shares.values()) == pytest.approx(1)


def test_the_timeline_of_a_medium(found: Summary) -> None:
    a, b, _ = (medium.course for medium in found.media)
    assert b.emotions == ("happy",) * 12 + ("sad",) * 12
    assert b.probabilities == pytest.approx([0.9] * STEPS, abs=0.001)
    assert b.step_s == pytest.approx(4 / STEPS)
    assert a.emotions == ("",) * 12 + ("fear",) * 12


@pytest.mark.parametrize("count", [2, 3, 7, 8, 13, 23])
def test_a_frame_on_the_border_of_a_step_is_in_it(tmp_path: Path, count: int) -> None:
    """.28 / .32 * 8 is a little less than 7."""
    frames = [frame_result(index, [probabilities_of("happy")]) for index in range(count)]
    (course,) = (medium.course for medium in summarise(results_of(tmp_path, {"a.mp4": frames})).media)
    assert course.emotions == ("happy",) * count


def test_a_picture_and_a_short_clip_have_short_timelines(tmp_path: Path) -> None:
    short = [frame_result(i, [probabilities_of("sad")]) for i in range(3)]
    (course,) = (medium.course for medium in summarise(results_of(tmp_path, {"a.mp4": short})).media)
    assert course.emotions == ("sad",) * 3


def test_orders(found: Summary) -> None:
    def order(name: str) -> str:
        return "".join(medium.media[0] for medium in found.sorted_by(name).media)

    assert [order(name) for name in ("media", "status", "faces", "happy", "uncertain")] == ["abc", "cab", "bac", "bac", "abc"]
    with pytest.raises(UsageError, match="did you mean 'happy'"):
        found.sorted_by("hapy")


def test_json_holds_everything(found: Summary) -> None:
    read = json.loads(json.dumps(found.as_dict()))
    assert read["media"][1]["course"]["emotions"][0] == "happy"
    assert read["total"]["faces"] == 124


def test_one_line_a_medium_where_there_is_no_terminal(found: Summary, capsys: pytest.CaptureFixture[str]) -> None:
    summary_table.print_summary(found)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["media", "a.mp4", "b.mp4", "c.mp4", "all"]
    assert lines[1].split() == ["a.mp4", "done", "48", "24", "1", "100%", "·" * 12 + "▄" * 12, "all", "uncertain"]
    assert "█" * STEPS in lines[2]
    assert lines[2].endswith("happy 50%, sad 50%")
    assert lines[5] == "/c.mp4 is empty"
    summary_table.print_summary(found, top=1)
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], io.StringIO]:
    def of(width: int, color_system: Any = "truecolor") -> io.StringIO:
        written = io.StringIO()
        console = Console(file=written, force_terminal=True, color_system=color_system, width=width, legacy_windows=False)
        monkeypatch.setattr(summary_table, "Console", lambda **_: console)
        return written

    return of


@pytest.mark.parametrize(("width", "whole"), [(80, False), (140, True)])
def test_colours_and_fewer_columns_in_a_terminal(found: Summary, terminal: Callable[[int], io.StringIO], width: int, whole: bool) -> None:
    written = terminal(width)
    summary_table.print_summary(found)
    text = written.getvalue()
    assert "\x1b[38;2;230;159;0m" in text, "happy's colour"
    assert ("uncertain" in text.splitlines()[0]) == whole
    assert "failed" in text
    assert "without a face" in " ".join(text.split())


def test_sixteen_colours_tell_emotions_apart(found: Summary, terminal: Callable[..., io.StringIO]) -> None:
    written = terminal(140, color_system="standard")
    summary_table.print_summary(found)
    legend = next(line for line in written.getvalue().splitlines() if "surprise" in line)
    codes = re.findall(r"\x1b\[(\d+)m█", legend)
    assert len(set(codes)) == len(codes) == 7


def test_names_are_data(tmp_path: Path, terminal: Callable[[int], io.StringIO], capsys: pytest.CaptureFixture[str]) -> None:
    found = summarise(results_of(tmp_path, {HOSTILE: [frame_result(0, [probabilities_of("sad")])]}))
    shown = "[bold]a\\n\\x1b[31m.mp4"
    summary_table.print_summary(found)
    assert capsys.readouterr().out.splitlines()[1].startswith(shown + "  ")
    written = terminal(200)
    summary_table.print_summary(found)
    assert shown in written.getvalue()


def test_a_terminal_is_not_flooded(tmp_path: Path, terminal: Callable[[int], io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary_table, "_MAX_MEDIA", 2)
    found = summarise(results_of(tmp_path, {f"{name}.mp4": [frame_result(0, [probabilities_of("sad")])] for name in "abc"}))
    written = terminal(140)
    summary_table.print_summary(found)
    assert "and 1 more media: --top 3" in written.getvalue()
    assert "c.mp4" not in written.getvalue()


def test_many_media_take_a_moment(tmp_path: Path) -> None:
    """Each medium takes about a millisecond; the limit leaves room for busy machines."""
    import time

    frames = [frame_result(0, [probabilities_of("sad")])]
    results_of(tmp_path, {f"{number}.mp4": frames for number in range(40)})
    began = time.process_time()
    summarise(tmp_path)
    assert time.process_time() - began < 2


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from batchemo.cli import main as cli

    results_of(tmp_path, {name: [frame_result(0, [probabilities_of("sad")])] for name in ("a.mp4", "b.mp4")})
    monkeypatch.setattr(sys, "argv", ["batchemo", "summary", str(tmp_path), "--top", "1", "--json"])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    assert exited.value.code == 0
    assert [medium["media"] for medium in json.loads(capsys.readouterr().out)["media"]] == ["a.mp4"]
