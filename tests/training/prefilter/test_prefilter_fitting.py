"""The pre-filter learns from the proposal network which blocks hold no face."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from batchemo.errors import DataError
from batchemo.faces.cascade import Cascade
from batchemo.faces.mtcnn import load_networks
from batchemo.faces.prefilter import PrefilterNet, load_prefilter
from batchemo.records import Frame
from tests.faces.photographs import photograph, tensor
from tests.made_media import read_pixels
from training.cli import app
from training.prefilter import composites, fitting
from training.prefilter.composites import compose_scene, read_backgrounds
from training.prefilter.fitting import (
    RECALL,
    _batches,
    _best_nearby,
    fit_prefilter,
    proposal_features,
    proposal_logits,
    write_prefilter,
)

SAMPLES = Path(__file__).parents[3] / "sample_media"
CPU = torch.device("cpu")


@pytest.fixture
def cascade() -> Cascade:
    return Cascade(min_face_px=40, exact=False, device=CPU)


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_scenes_are_pictures_of_one_size_that_their_seed_decides(seed: int) -> None:
    faces, backgrounds = np.full((2, 48, 48), 120, np.uint8), [photograph()]
    scene = compose_scene(faces, backgrounds, np.random.default_rng(seed))
    assert scene.shape == (126, 126, 3)
    assert scene.dtype == np.float32
    assert 0 <= scene.min() <= scene.max() <= 255
    assert np.array_equal(scene, compose_scene(faces, backgrounds, np.random.default_rng(seed)))


def test_the_teacher_is_the_proposal_network_that_searches(cascade: Cascade) -> None:
    pixels = tensor(photograph(width=100))
    network = load_networks()[0]
    features = proposal_features(network, pixels)
    logits = proposal_logits(network, features)
    with torch.inference_mode():
        torch.testing.assert_close(cascade._stem(pixels), features, rtol=0, atol=1e-5)
        _, places = cascade._select_cells(cascade._stem(pixels))
    sure = (logits - np.log(4)).abs() > 1e-2  # a score of .8
    seen = torch.zeros_like(logits, dtype=torch.bool)
    seen[tuple(places.T)] = True
    assert seen.any()
    assert torch.equal(seen[sure], (logits > np.log(4))[sure])


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "_BATCH", 4)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread", "small_batches")
def test_a_prefilter_learns_where_faces_are(tmp_path: Path) -> None:
    box = json.loads((SAMPLES / "grace_hopper.json").read_text())["frames"][0]["faces"][0]["box"]
    left, top, right, bottom = map(round, box)
    whole = cv2.cvtColor(read_pixels(SAMPLES / "grace_hopper.jpg"), cv2.COLOR_BGR2GRAY)
    faces = np.asarray(cv2.resize(whole[top:bottom, left:right], (48, 48), interpolation=cv2.INTER_AREA), np.uint8)[None]
    losses: list[float] = []
    backgrounds = [photograph("eileen_collins"), photograph("grace_hopper")]

    def fit(steps: int) -> tuple[PrefilterNet, float]:
        return fit_prefilter(
            faces, faces, backgrounds, steps=steps, seed=0, report=lambda _, loss: losses.append(loss), threshold_batches=20
        )

    _, ignorant = fit(20)
    network, kept = fit(100)
    assert losses[-1] < 0.8 * losses[0]
    assert kept < 0.5 * ignorant
    batches = _batches(faces, backgrounds, load_networks()[0], seed=7)
    with torch.inference_mode():
        pairs = [
            (_best_nearby(network(features), logits > np.log(19)), logits > np.log(19))
            for features, logits in itertools.islice(batches, 20)
        ]
    assert torch.cat([best[seen] > 0 for best, seen in pairs]).float().mean() > RECALL - 0.04
    write_prefilter(network, tmp_path / "prefilter.safetensors")
    again = load_prefilter(tmp_path / "prefilter.safetensors")
    features = proposal_features(load_networks()[0], tensor(photograph(width=100)))
    assert torch.equal(network(features), again(features))


def test_a_folder_without_pictures_is_reported(data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures or videos"):
        read_backgrounds(tmp_path / "empty")
    ended = CliRunner().invoke(
        app, ["prefilter", "--data", str(data), "--pictures", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]
    )
    assert isinstance(ended.exception, DataError)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread", "small_batches")
def test_the_command_writes_what_it_says(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "prefilter.safetensors"
    (tmp_path / "backgrounds").mkdir()
    shutil.copy(SAMPLES / "eileen_collins.jpg", tmp_path / "backgrounds")
    ended = CliRunner().invoke(
        app,
        ["prefilter", "--data", str(data), "--pictures", str(tmp_path / "backgrounds"), "--out", str(path), "--steps", "20"],
        catch_exceptions=False,
    )
    assert ended.exit_code == 0
    assert ended.stdout.strip() == str(path)
    load_prefilter(path)


def test_damaged_frames_are_no_backgrounds_and_large_ones_are_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "large.png"), np.zeros((2200, 1300, 3), np.uint8))
    cv2.imwrite(str(folder / "small.png"), np.zeros((20, 400, 3), np.uint8))
    assert [background.shape for background in read_backgrounds(folder)] == [(1100, 650, 3)]
    monkeypatch.setattr(composites, "_MOST_BACKGROUNDS", 3)
    assert len(read_backgrounds(SAMPLES)) == 3
    monkeypatch.setattr(composites, "open_source", lambda *_, **__: Lost())
    with pytest.raises(DataError, match="holds no pictures or videos"):
        read_backgrounds(SAMPLES)


class Lost:
    """A video of which no frame can be decoded."""

    def frames(self, *, sample_fps: float) -> Iterator[Frame]:
        yield Frame(-1, sample_fps, None)
