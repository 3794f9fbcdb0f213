"""What `run.json` and the tables say of the processors that media were analysed on."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import batchemo
from batchemo.emotion.classifier import choose_precision
from batchemo.emotion.weights import read_weights_file
from batchemo.options import merge_options
from batchemo.pipeline import inference as frames
from batchemo.pipeline import pictures, video
from batchemo.pipeline.context import RunContext
from batchemo.results.catalog import read_catalog
from batchemo.results.schema import ROW_KEY, write_table
from batchemo.run.run import RunCallbacks, RunResult, run_media
from batchemo.verify.audit import verify

SAMPLES = Path(__file__).parents[2] / "sample_media"
SILENT = RunCallbacks(started=lambda _plan, _heartbeats: None, finished=lambda _row: None)
OTHER = "Cray-1 float32"


def go(media: Path, out: Path, **flags: object) -> RunResult:
    return run_media([media], out, merge_options({"workers": 1, "device": "cpu", "report": False, **flags}, environment={}), SILENT)


def own() -> str:
    precision = choose_precision(read_weights_file(), torch.device("cpu"))
    return f"{torch.backends.cpu.get_cpu_capability()} {precision}"


def processors(out: Path) -> dict[str, tuple[str, ...]]:
    return {entry.row.media: entry.processors for entry in read_catalog(out)}


def manifest(out: Path) -> dict[str, Any]:
    """Of the run that ended last."""
    facts = [json.loads(path.read_text(encoding="utf-8")) for path in out.glob("runs/*/run.json")]
    found: dict[str, Any] = max(facts, key=lambda each: each["ended"])
    return found


def on_another(take: Callable[[RunContext], frames.Models]) -> Callable[[RunContext], frames.Models]:
    return lambda context: dataclasses.replace(take(context), processor=OTHER)


def forget_processors(path: Path) -> None:
    """Makes a table of `frames` what versions wrote that did not store the processors."""
    table = pq.ParquetFile(path).read()
    metadata = dict(table.schema.metadata)
    row = json.loads(metadata[ROW_KEY])
    del row["processors"]
    write_table(table.replace_schema_metadata({**metadata, ROW_KEY: json.dumps(row).encode()}), path)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    shutil.copy(SAMPLES / "variable_rate.mp4", folder / "clip.mp4")
    cv2.imwrite(str(folder / "still.png"), np.full((32, 32, 3), 90, np.uint8))
    return folder


def test_results_of_several_processors_are_said_to_be_and_stay(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "models_of", on_another(frames.models_of))
        patch.setattr(video, "models_of", on_another(frames.models_of))
        go(media, out)
    assert processors(out) == {"clip.mp4": (OTHER,), "still.png": (OTHER,)}
    assert manifest(out)["processors"] == {OTHER: 2}
    assert not caplog.records
    shutil.copy(media / "still.png", media / "another.png")
    with caplog.at_level(logging.WARNING, logger="batchemo"):
        assert go(media, out).analysed == ("another.png",)
    assert manifest(out)["processors"] == {OTHER: 2, own(): 1}
    (message,) = caplog.messages
    assert f"2 on {OTHER}, 1 on {own()}" in message
    caplog.clear()
    (out / "annotated" / "clip.mp4.mp4").unlink()
    report = go(media, out)
    assert (report.analysed, report.redrawn) == ((), ("clip.mp4",))
    assert processors(out) == {"another.png": (own(),), "clip.mp4": (OTHER,), "still.png": (OTHER,)}, "who draws a copy does not count"
    assert manifest(out)["processors"] == {OTHER: 2, own(): 1}
    assert not caplog.records, "nothing was analysed"


def test_results_that_say_nothing_of_processors_stay(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    go(media, out)
    for path in (out / "frames").glob("*.parquet"):
        forget_processors(path)
    assert set(processors(out).values()) == {()}
    assert go(media, out).analysed == ()
    assert manifest(out)["processors"] == {}
    assert verify(out).problems == ()
    assert len(batchemo.load(out, table="frames")) > 2
