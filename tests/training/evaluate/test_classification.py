"""Classification metrics: computed by hand for small cases, and against votes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from batchemo.errors import DataError
from batchemo.records import EMOTIONS
from training.evaluate.calibration import fit_temperature
from training.evaluate.classification import classification_figures, evaluate_against_votes

SCORES = ("precision", "recall", "f1", "support")


def logits_of(probabilities: list[list[float]]) -> NDArray[np.float64]:
    return np.log(np.array(probabilities))


def test_figures_of_a_small_case_computed_by_hand() -> None:
    small = 0.4 / 6
    sure_of = {label: [0.6 if index == label else small for index in range(7)] for label in range(7)}
    truth = np.array([0, 0, 0, 3, 3])
    read_as = [0, 0, 3, 3, 3]
    figures = classification_figures(
        logits_of([sure_of[label] for label in read_as]), truth, temperature=1.0, clean=np.array([0, 0, 1, 1, 1], bool)
    )
    assert figures["n"] == 5
    assert figures["accuracy"] == pytest.approx(0.8)
    # Wilson 1927 for 4 of 5 with z = 1.96: centre (.8 + z^2/10) / (1 + z^2/5), half width z sqrt(.8 x .2 / 5 + z^2/100) / (1 + z^2/5).
    assert (figures["accuracy_low"], figures["accuracy_high"]) == (pytest.approx(0.3755, abs=1e-4), pytest.approx(0.9638, abs=1e-4))
    assert figures["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert figures["macro_f1"] == pytest.approx((0.8 + 0.8) / 2)
    assert figures["nll"] == pytest.approx(-(4 * math.log(0.6) + math.log(small)) / 5)
    right, wrong = 0.4**2 + 6 * small**2, 0.6**2 + (1 - small) ** 2 + 5 * small**2
    assert figures["brier"] == pytest.approx((4 * right + wrong) / 5)
    assert figures["ece"] == pytest.approx((4 * 0.4 + 0.6) / 5)  # five pictures in fifteen bins: each is its own
    happy, fear = (figures["per_class"][emotion] for emotion in ("happy", "fear"))
    assert {key: happy[key] for key in SCORES} == {"precision": pytest.approx(2 / 3), "recall": 1.0, "f1": pytest.approx(0.8), "support": 2}
    assert {key: fear[key] for key in SCORES} == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert happy["recall_interval"] == (pytest.approx(0.3424, abs=1e-4), 1.0)  # Wilson for 2 of 2: 1 / (1 + z^2/2)
    assert fear["recall_interval"] == (0.0, 1.0)  # nothing is known
    assert figures["confusion"][0] == [2, 0, 0, 1, 0, 0, 0]
    assert figures["confusion"][3] == [0, 0, 0, 2, 0, 0, 0]
    assert (figures["clean"]["n"], figures["clean"]["accuracy"]) == (3, pytest.approx(2 / 3))
    assert figures["coverage"][2] == {"threshold": 0.5, "coverage": 1.0, "accuracy": pytest.approx(0.8)}
    assert figures["coverage"][4] == {"threshold": 0.7, "coverage": 0.0, "accuracy": None}


def test_macro_f1_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(200, 7)), random.integers(0, 7, 200)
    figures = classification_figures(logits, labels, temperature=2.0, clean=None)
    assert figures["macro_f1"] == pytest.approx(f1_score(labels, logits.argmax(1), average="macro"))
    assert figures["clean"] is None


def test_nothing_cannot_be_evaluated() -> None:
    with pytest.raises(DataError, match="0 pictures are too few"):
        classification_figures(np.empty((0, 7)), np.empty(0, np.int64), temperature=1.0, clean=None)
    with pytest.raises(DataError, match="no pictures to fit the temperature on"):
        fit_temperature(np.empty((0, 7)), np.empty(0, np.int64))


def test_figures_against_votes_count_contempt_as_read_wrong() -> None:
    happy, sad, contempt, nothing = EMOTIONS.index("happy"), EMOTIONS.index("sad"), len(EMOTIONS), -1
    predicted = np.array([happy, sad, sad, happy, happy])
    found = evaluate_against_votes(predicted, np.array([happy, happy, sad, contempt, nothing]))
    assert found is not None
    assert (found["n"], found["n_contempt"], found["accuracy"]) == (4, 1, 0.5)
    assert found["accuracy_seven"] == pytest.approx(2 / 3)
    assert found["per_class_recall"] == {"happy": 0.5, "sad": 1.0}
    assert found["accuracy_low"] < 0.5 < found["accuracy_high"]
    assert evaluate_against_votes(predicted, np.full(5, nothing)) is None
