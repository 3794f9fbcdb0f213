"""Pictures that are analysed together: each gets the tables that it gets alone, whatever the others are."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

import batchemo
from batchemo.emotion.classifier import Classifier
from batchemo.emotion.weights import SHIPPED, read_weights_file
from batchemo.media.decode import open_source
from batchemo.media.discover import find_media
from batchemo.media.shots import ShotFinder
from batchemo.options import merge_options
from batchemo.pipeline import inference as frame_inference
from batchemo.pipeline.context import RunContext
from batchemo.records import MediaRow, MediumOutcome
from batchemo.results.catalog import merge_media_rows
from batchemo.results.schema import PER_MEDIUM
from batchemo.run.heartbeat import read_heartbeats
from batchemo.run.tasks import AnalysisTask, Job
from batchemo.timing import Stopwatch
from batchemo.verify.audit import verify
from tests.made_media import read_pixels

SAMPLES = Path(__file__).parents[2] / "sample_media"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures with faces, one that is damaged among them, one without, and one that has gone."""
    folder = tmp_path / "media"
    folder.mkdir()
    for number, source in enumerate(sorted(SAMPLES.glob("*.jpg"))):
        shutil.copy(source, folder / f"{number}.jpg")
        cv2.imwrite(str(folder / f"{number}_flipped.png"), cv2.flip(read_pixels(source), 1))
    cv2.imwrite(str(folder / "nobody.png"), np.full((100, 100, 3), 90, np.uint8))
    (folder / "1b.jpg").write_bytes((folder / "1.jpg").read_bytes()[:2000])
    shutil.copy(folder / "0.jpg", folder / "gone.jpg")
    return folder


def analysed(folder: Path, out: Path, *, at_once: int = 99, **flags: Any) -> list[MediumOutcome]:
    media = find_media([folder], out=out)
    if (folder / "gone.jpg").exists():
        (folder / "gone.jpg").rename(folder / "gone")
    options = merge_options({"device": "cpu", **flags}, environment={})
    weights = read_weights_file(SHIPPED)
    context = RunContext(out, options, "run-1", weights.labels, weights.sha256)
    heartbeats = out / "heartbeats"
    heartbeats.mkdir(parents=True, exist_ok=True)
    task = AnalysisTask(context, heartbeats)
    groups = [media[start : start + at_once] for start in range(0, len(media), at_once)]
    outcomes: list[MediumOutcome] = []
    for first, *others in groups:
        done = task(Job(first, others=tuple(others)))
        assert isinstance(done, tuple)
        outcomes += done
    assert [outcome.row.media for outcome in outcomes] == [medium.name for medium in media]
    assert any(beat.beats for beat in read_heartbeats(heartbeats))
    if (folder / "gone").exists():
        (folder / "gone").rename(folder / "gone.jpg")
    return outcomes


def facts(row: MediaRow) -> dict[str, Any]:
    return {name: value for name, value in row.as_dict().items() if name != "seconds_taken"}


@pytest.mark.parametrize("precision", ["as this machine has it", "float32"])
def test_pictures_get_the_tables_together_that_they_get_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    if precision == "float32":
        monkeypatch.setattr("batchemo.emotion.classifier.choose_precision", lambda _weights, _device: "float32")
    frame_inference.load_models.cache_clear()
    alone, together = (analysed(folder, tmp_path / str(at_once), at_once=at_once) for at_once in (1, 99))
    frame_inference.load_models.cache_clear()
    assert [facts(outcome.row) for outcome in alone] == [facts(outcome.row) for outcome in together]
    assert {outcome.row.media: outcome.row.error for outcome in together if outcome.row.error} == {
        "1b.jpg": "damaged",
        "gone.jpg": "unreadable",
    }
    assert sum(outcome.row.n_faces for outcome in together) >= 3
    for table in PER_MEDIUM:
        first, second = (batchemo.load(tmp_path / str(at_once), table=table) for at_once in (1, 99))
        pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert {path.name for path in (tmp_path / "99" / "annotated").iterdir()} == {
        f"{outcome.row.media}.jpg" for outcome in together if not outcome.row.error
    }


def test_expressions_that_cannot_be_read_cost_those_pictures(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the network has gone")

    monkeypatch.setattr(Classifier, "classify", fail)
    rows = {outcome.row.media: outcome.row for outcome in analysed(folder, tmp_path / "out")}
    assert rows.pop("1b.jpg").error == "damaged"
    assert rows.pop("gone.jpg").error == "unreadable"
    assert {row.error for row in rows.values()} == {"defect"}


def test_copies_are_drawn_again_among_others(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    analysed(folder, out)
    before = (out / "faces" / "0.jpg.parquet").stat().st_mtime_ns
    (out / "annotated" / "0.jpg.jpg").unlink()
    rows = {outcome.row.media: outcome.row for outcome in analysed(folder, out, retry_failed=True)}
    assert (out / "annotated" / "0.jpg.jpg").is_file()
    assert (out / "faces" / "0.jpg.parquet").stat().st_mtime_ns == before
    merge_media_rows(out, rows, lacking={})
    assert not verify(out).problems


def test_a_picture_is_not_charged_for_the_others(folder: Path, tmp_path: Path) -> None:
    outcomes = analysed(folder, tmp_path / "out")
    assert all(outcome.row.seconds_taken > 0 for outcome in outcomes)
    searched = [outcome.seconds["search and follow"] for outcome in outcomes if not outcome.row.error]
    assert all(seconds > 0 for seconds in searched)
    assert max(searched) < sum(searched)


def test_batches_are_small_and_smaller_where_items_are_large() -> None:
    assert [len(batch) for batch in frame_inference.batch_by_size(range(40), lambda _: 1)] == [16, 16, 8]
    assert [len(batch) for batch in frame_inference.batch_by_size(range(5), lambda _: 40 * 2**20)] == [2, 2, 1]
    assert list(frame_inference.batch_by_size([], lambda _: 1)) == []


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_a_video_that_is_decoded_ahead_gives_the_same_results(decoder: str) -> None:
    (video,) = find_media([SAMPLES / "two_people_and_a_cut.mp4"], out=SAMPLES / "out")
    context = RunContext(SAMPLES, merge_options({"device": "cpu"}, environment={}), "run-1", (), "")
    models = dataclasses.replace(frame_inference.models_of(context), propagates=False)
    found = []
    for ahead in (False, True):
        source, watch = open_source(video, decoder=decoder), Stopwatch()  # type: ignore[arg-type]
        frames, own = source.frames(sample_fps=5), dataclasses.replace(models, decodes_ahead=ahead)
        found.append(list(frame_inference.infer_frames(frames, own, ShotFinder(), watch, appearance=True)))
        assert watch.seconds["decode"] > 0
        assert source.report.decoded > 20
    first, second = found
    assert len(first) == len(second) > 5
    assert sum(len(each.faces) for each in first) > 5
    for before, after in zip(first, second, strict=True):
        assert (before.index, before.time_s, before.cut) == (after.index, after.time_s, after.cut)
        np.testing.assert_array_equal(before.faces.boxes, after.faces.boxes)
        np.testing.assert_array_equal(before.probabilities, after.probabilities)
        assert (before.embeddings is None) == (after.embeddings is None)
