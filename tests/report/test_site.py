"""The page: its data, its size, its policy, and that file names stay text."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchemo.errors import UsageError
from batchemo.records import EMOTIONS, MediaRow, Medium
from batchemo.report.last_run import read_last_run
from batchemo.report.packing import pack_timeline
from batchemo.report.page import readable_name
from batchemo.report.site import Site, write_site
from batchemo.report.timelines import STRIP_CELLS, Timeline, Track
from tests.made_results import FRAMES, HOSTILE, PICTURE, RATE, hostile_results, write_manifest, write_media, write_medium


class Page(HTMLParser):
    """The tags of a page, and the text of each script by its id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: dict[str, str] = {}
        self.policy = ""
        self.title = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        assert not any(name.startswith("on") or name in {"style", "src"} for name in found)
        self._inside = f"{tag} {found.get('id') or ''}"
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""

    def handle_data(self, data: str) -> None:
        if self._inside.startswith("script") and data.strip():
            self.scripts[self._inside.removeprefix("script ")] = data
        elif self._inside == "title ":
            self.title += data

    def handle_endtag(self, tag: str) -> None:
        del tag
        self._inside = ""


def unpack(text: str) -> tuple[dict[str, Any], bytes]:
    plain = zlib.decompress(base64.b64decode(text, validate=True))
    length = int.from_bytes(plain[:4], "little")
    return json.loads(plain[4 : 4 + length]), plain[4 + length :]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile_results(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(results: Path) -> Page:
    return Page(write_site(results).page.read_text(encoding="utf-8"))


def index_of(page: Page) -> dict[str, Any]:
    return unpack(page.scripts["index"])[0]


def medium_of(page: Page, name: str) -> dict[str, Any]:
    return next(medium for medium in index_of(page)["media"] if medium["name"] == readable_name(name))


def test_no_name_becomes_markup(page: Page) -> None:
    assert not {"img", "b", "iframe", "object", "link", "base"} & set(page.tags)
    assert page.tags.count("script") == 2 + len(index_of(page)["media"])
    assert page.title == "results & <b>more · batchemo"
    assert {medium["name"] for medium in index_of(page)["media"]} >= {readable_name(name) for name in HOSTILE}


def test_names_stand_on_one_line_and_are_not_turned() -> None:
    assert readable_name("a\nb\u202ec\x00é 喜.mp4") == "a\\nb\\u202ec\\x00é 喜.mp4"


def test_the_script_makes_no_markup_of_text(page: Page) -> None:
    for forbidden in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "fetch(",
        "http:",
        "https:",
    ):
        assert forbidden not in page.scripts[""].replace("http://www.w3.org/2000/svg", "")


def test_the_policy_allows_only_what_the_page_holds(page: Page, results: Path) -> None:
    assert page.policy.startswith("default-src 'none'; script-src 'sha256-")
    for forbidden in ("unsafe", "http", "*", "strict-dynamic", "data:"):
        assert forbidden not in page.policy
    text = (results / "report" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_copies_are_found_whatever_they_are_called(page: Page, results: Path) -> None:
    from urllib.parse import unquote

    for medium in index_of(page)["media"]:
        if medium["status"] == "done":
            assert re.fullmatch(r"[\w./%~-]+", medium["copy"], re.ASCII), medium["copy"]
            assert (results / "report" / unquote(medium["copy"])).is_file()


def test_media_are_described(page: Page) -> None:
    angry = medium_of(page, "angry.mp4")
    assert (angry["faces"], angry["tracks"], angry["frames"]) == (FRAMES, 1, FRAMES)
    counts = np.array(angry["counts"])
    assert counts[EMOTIONS.index("angry"), 9] == FRAMES == counts.sum()
    assert angry["strip"] == [10 * EMOTIONS.index("angry") + 9] * STRIP_CELLS
    first = medium_of(page, HOSTILE[0])
    half = STRIP_CELLS // 2
    assert first["strip"] == [10 * EMOTIONS.index("happy") + 9] * half + [10 * EMOTIONS.index("sad") + 8] * half
    assert np.array(first["counts"])[EMOTIONS.index("fear")].tolist() == [0, 0, 0, 0, FRAMES, 0, 0, 0, 0, 0]
    faceless = medium_of(page, "nobody.mp4")
    assert (faceless["faces"], faceless["strip"]) == (0, [])
    failed = medium_of(page, "<b>empty</b>.mp4")
    assert failed["status"] == "failed"
    assert "is empty (0 bytes)" in failed["message"]


def test_timelines_come_back(page: Page) -> None:
    number = [medium["name"] for medium in index_of(page)["media"]].index(readable_name(HOSTILE[0]))
    header, content = unpack(page.scripts[f"timeline-{number}"])
    track = header["tracks"][0]
    assert (track["id"], track["n"], header["step"], header["labels"]) == (1, FRAMES, 0, 7)
    times = np.cumsum(np.frombuffer(content[: 4 * FRAMES], "<u4")) / 10_000
    np.testing.assert_allclose(times, np.arange(FRAMES) / RATE, atol=1e-4)
    values = np.frombuffer(content[4 * FRAMES : 11 * FRAMES], np.uint8).reshape(7, FRAMES)
    percents = np.cumsum(values, axis=1, dtype=np.uint8)
    assert percents[EMOTIONS.index("happy")].tolist() == [90] * 90 + [3] * 90
    assert percents[EMOTIONS.index("sad")].tolist() == [2] * 90 + [80] * 90
    assert content[11 * FRAMES :][: track["thumbnail"]] == PICTURE.read_bytes()
    (happy, sad) = track["episodes"]
    assert (happy[0], sad[0]) == (EMOTIONS.index("happy"), EMOTIONS.index("sad"))
    assert happy[1] == 0
    assert sad[1] == pytest.approx(3, abs=0.3)


def track_of(times: np.ndarray[Any, np.dtype[np.float64]], track_id: int = 1) -> Track:
    values = np.random.default_rng(track_id).dirichlet(np.ones(7), len(times)).astype(np.float32)
    return Track(track_id, times, values, (), 0.0, b"")


def test_averages_over_time() -> None:
    track = dataclasses.replace(track_of(np.array([0.0, 0.04, 0.08, 0.12, 5.0])))
    coarse = track.every(0.1)
    np.testing.assert_allclose(coarse.times_s, [0.04, 0.12, 5.0])
    np.testing.assert_allclose(coarse.probabilities[0], track.probabilities[:3].mean(axis=0), rtol=1e-5)
    assert track.every(0) is track


def test_a_hundred_videos_of_minutes_fit_into_one_page(tmp_path: Path) -> None:
    # Three minutes at 25 frames a second, two people, and values without any pattern, which deflate worst.
    times = np.arange(4500) / 25
    timeline = Timeline(EMOTIONS, tuple(track_of(times, i) for i in (1, 2)))
    at_tenths = len(pack_timeline(timeline, step_s=0.25))
    assert at_tenths * 100 < 4_500_000
    assert at_tenths < len(pack_timeline(timeline, step_s=0)) / 4


def test_too_much_for_one_page_is_split_and_joined_again(results: Path) -> None:
    alone = write_site(results)
    whole = alone.page.stat().st_size
    split = write_site(results, max_bytes=1000)
    assert (alone.split, split.split) == (False, True)
    page = Page(split.page.read_text(encoding="utf-8"))
    assert split.page.stat().st_size < whole
    assert "'strict-dynamic'" in page.policy
    stale = results / "report" / "timelines" / "stale.js"
    stale.write_text("")
    assert write_site(results, max_media=3).split
    assert not stale.exists()
    media = index_of(page)["media"]
    texts = [(results / "report" / medium["file"]).read_text() for medium in media]
    assert all(re.fullmatch(r'batchemoTimeline\("[A-Za-z0-9+/=]+"\);\n', text) for text in texts)
    assert len({medium["file"] for medium in media}) == len(media)
    write_site(results)
    assert not (results / "report" / "timelines").exists()


def test_the_last_run_is_compared_with_the_one_before(page: Page) -> None:
    run = index_of(page)["run"]
    assert (run["run_ids"], run["job"], run["how"], run["analysed"]) == (["20260102T020000Z-b"], "nightly", "done", 1)
    assert (run["failing"], run["recovered"], run["vanished"]) == (["<b>empty</b>.mp4"], ["angry.mp4"], ["g<o>ne.mp4"])
    assert run["before"].startswith("2026-01-01T02:00"), "the manual run in between had other media"
    assert run["drift"] == ["share of <i>angry</i> faces: 90%, usually 10% (5% to 15% in 9 runs)"]
    assert [medium["name"] for medium in index_of(page)["media"] if medium["run"] in run["run_ids"]] == ["angry.mp4"]


def test_shards_that_run_together_are_one_run(tmp_path: Path) -> None:
    def shard(run_id: str, part: str, **more: Any) -> None:
        write_manifest(tmp_path, run_id, analysed=3, job="nightly", options={"shard": part}, inputs=["/media"], **more)

    shard("20260101T020000Z-a", "1/2", failures=["a.mp4"])
    shard("20260101T020001Z-b", "2/2", failures=["b.mp4", "c.mp4"])
    shard("20260102T020000Z-c", "2/2", failures=["b.mp4"], drift={"findings": [{"text": "mean confidence: 40%"}]})
    shard("20260102T020001Z-d", "1/2", failures=["a.mp4", "d.mp4"], drift={"findings": [], "note": "not compared"})
    last = read_last_run(tmp_path, done=["c.mp4"])
    assert last
    assert last.run_ids == ("20260102T020001Z-d", "20260102T020000Z-c")
    assert (last.shards, last.of_shards, last.analysed) == (2, 2, 6)
    assert (last.started[:19], last.before[:19]) == ("2026-01-02T02:00:00", "2026-01-01T02:00:00")
    assert (last.failing, last.recovered) == (("d.mp4",), ("c.mp4",))
    assert (last.drift, last.drift_note) == (("shard 2/2: mean confidence: 40%",), "not compared")
    shard("20260103T020000Z-e", "1/2", failures=["a.mp4", "d.mp4"])
    late = read_last_run(tmp_path, done=["c.mp4"])
    assert late
    assert (late.shards, late.failing, late.recovered) == (1, (), ()), "media of a shard that has not run are not counted as done"


def test_runs_by_hand_on_other_media_are_not_compared(tmp_path: Path) -> None:
    write_manifest(tmp_path, "20260101T020000Z-a", inputs=["/media"], failures=["a.mp4"])
    write_manifest(tmp_path, "20260102T020000Z-b", inputs=["/others"], failures=["b.mp4"])
    last = read_last_run(tmp_path, done=["a.mp4"])
    assert last
    assert (last.before, last.failing, last.recovered) == ("", (), ())


@pytest.mark.parametrize(("how", "expected"), [({"how": "StorageError", "message": "disk full"}, "StorageError"), ({}, "")])
def test_a_run_that_did_not_end_is_compared_with_no_other(tmp_path: Path, how: dict[str, str], expected: str) -> None:
    write_manifest(tmp_path, "20260101T020000Z-a", failures=["a.mp4"])
    write_manifest(tmp_path, "20260102T020000Z-b")
    path = tmp_path / "runs" / "20260102T020000Z-b" / "run.json"
    facts = json.loads(path.read_text())
    for name in ("how", "failures"):
        del facts[name]
    path.write_text(json.dumps(facts | how))
    last = read_last_run(tmp_path)
    assert last
    assert (last.how, last.message, last.recovered) == (expected, how.get("message", ""), ())
    write_manifest(tmp_path, "20260103T020000Z-c", failures=["a.mp4"])
    last = read_last_run(tmp_path)
    assert last
    assert (last.before[:10], last.failing) == ("2026-01-01", ()), "compared with the last finished run"


def test_what_is_broken_costs_only_itself(tmp_path: Path) -> None:
    medium = Medium(tmp_path / "a.mp4", "a.mp4", "a.mp4", "video")
    row = write_medium(tmp_path, medium, [[("happy", 0.9)]], run_id="x", frames=10)
    write_medium(tmp_path, Medium(tmp_path / "b.mp4", "b.mp4", "b.mp4", "video"), [[("sad", 0.9)]], run_id="x", frames=10)
    write_media(tmp_path, [row])
    (tmp_path / "faces" / "b.mp4.parquet").write_bytes(b"not Parquet")
    (tmp_path / "runs" / "1").mkdir(parents=True)
    (tmp_path / "runs" / "1" / "run.json").write_text("{")
    page = Page(write_site(tmp_path).page.read_text())
    found = {medium["name"]: np.sum(medium["counts"]) for medium in index_of(page)["media"]}
    assert found == {"a.mp4": 10, "b.mp4": 0}
    assert index_of(page)["run"] is None


def test_media_of_other_weights_keep_their_labels(tmp_path: Path) -> None:
    row = MediaRow(media="a.mp4", path="", kind="video", status="failed")
    write_media(tmp_path, [row])
    assert index_of(Page(write_site(tmp_path).page.read_text()))["labels"] == list(EMOTIONS)


def test_no_results_are_an_error_that_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no results; make some with: batchemo run INPUT --out"):
        write_site(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_runs_that_end_at_once_write_one_after_the_other(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_medium(tmp_path, Medium(tmp_path / name, name, name, "video"), [[("happy", 0.9)]], run_id="x", frames=10)
    with ThreadPoolExecutor() as pool:
        sites = list(pool.map(lambda _: write_site(tmp_path, max_media=1), range(8)))
    assert all(site.split for site in sites)
    media = index_of(Page(sites[0].page.read_text()))["media"]
    assert all((tmp_path / "report" / medium["file"]).is_file() for medium in media)


def test_the_command_needs_neither_torch_nor_a_decoder(results: Path) -> None:
    script = (
        "import sys\nfrom batchemo.cli.main import main_app\n"
        f"try:\n    main_app(['report', {str(results)!r}, '--json'])\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print(*[name for name in ('torch', 'cv2', 'av', 'decord') if name in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout) == Site(results / "report" / "index.html", len(HOSTILE) + 3, split=False).as_dict()
    assert ended.stderr.split() == []
