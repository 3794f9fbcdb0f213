"""The command evaluate: degradations, votes and charts, and the same figures each time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from batchemo.emotion.model import ExpressionNet
from batchemo.emotion.weights import save_weights
from batchemo.records import EMOTIONS
from tests.patterns import Done, write_votes
from training.data.fer2013 import read_splits
from training.data.votes import EMOTION_OF_VOTE
from training.evaluate.degradation import DEGRADATIONS

EMOTION_TO_VOTE = {emotion: vote for vote, emotion in EMOTION_OF_VOTE.items()}


@pytest.fixture
def weights(fitted: ExpressionNet, tmp_path: Path) -> Path:
    save_weights(tmp_path / "net.safetensors", fitted, labels=EMOTIONS, temperature=1.2, figures={})
    return tmp_path / "net.safetensors"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_degraded_pictures_and_votes_are_measured_and_drawn(run: Callable[..., Done], weights: Path, data: Path, tmp_path: Path) -> None:
    splits = read_splits(data)
    agreed = [(split, {EMOTION_TO_VOTE[EMOTIONS[label]]: 10}) for split, faces in splits.items() for label in faces.labels.tolist()]
    votes = write_votes(tmp_path / "fer2013new.csv", agreed)
    pictures = tmp_path / "pictures"
    done = run("evaluate", weights, "--data", data, "--votes", votes, "--degraded", "--pictures", pictures, "--json")
    assert done.code == 0
    figures = json.loads(done.out)
    assert figures["ferplus"]["accuracy"] == figures["accuracy"]  # the votes are the labels
    assert figures["ferplus"]["clean"]["n"] == figures["clean"]["n"] == 56
    assert list(figures["degraded"]) == [*DEGRADATIONS, "mean"]
    parts = [figures["degraded"][name] for name in DEGRADATIONS]
    assert figures["degraded"]["mean"]["accuracy"] == pytest.approx(np.mean([part["accuracy"] for part in parts]))
    assert all(0 <= part["accuracy_clean"] <= 1 for part in parts)
    for name in ("confusion.png", "risk_coverage.png"):
        drawn_picture = cv2.imread(str(pictures / name))
        assert drawn_picture is not None
        assert drawn_picture.shape[1] > 600
        assert drawn_picture.std() > 10

    done = run("evaluate", weights, "--data", data, "--votes", votes, "--degraded", "--split", "Training")
    assert done.code == 0
    assert "JPEG, quality 20" in done.out
    assert "accuracy, contempt counted as wrong" in done.out
    assert "a choice for batchemo's --uncertain-below" in done.out
    assert "unseen in training" not in done.out


def test_the_same_weights_and_pictures_give_the_same_figures(run: Callable[..., Done], weights: Path, data: Path) -> None:
    one, other = (run("evaluate", weights, "--data", data, "--json").out for _ in range(2))
    assert one == other
