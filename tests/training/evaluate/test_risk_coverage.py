"""The risk-coverage curve, and the confidence below which predictions are uncertain."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluate.calibration import calibrate
from training.evaluate.classification import classification_figures
from training.evaluate.risk_coverage import POINTS, risk_coverage, uncertain_below


def drawn(scale: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits, times `scale`, of 4,000 pictures whose labels are drawn by the probabilities of the unscaled logits."""
    random = np.random.default_rng(7)
    logits = random.normal(0, 1.5, (4000, 7))
    labels = np.array([random.choice(7, p=row) for row in calibrate(logits, 1.0)])
    return logits * scale, labels


def test_the_risk_coverage_curve_of_a_small_case_computed_by_hand() -> None:
    confidences = np.array([0.5, 0.9, 0.7, 0.9])
    correct = np.array([False, True, False, True])
    found = risk_coverage(confidences, correct)
    assert found["curve"] == [
        {"coverage": 0.5, "risk": 0.0, "threshold": 0.9},
        {"coverage": 0.75, "risk": pytest.approx(1 / 3), "threshold": 0.7},
        {"coverage": 1.0, "risk": 0.5, "threshold": 0.5},
    ]
    assert found["aurc"] == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)


def test_the_whole_curve_ends_with_the_accuracy_and_is_short() -> None:
    logits, labels = drawn(1.0)
    figures = classification_figures(logits, labels, temperature=1.0, clean=None)
    curve = figures["risk_coverage"]["curve"]
    assert 40 <= len(curve) <= POINTS
    assert curve[-1]["coverage"] == 1.0
    assert curve[-1]["risk"] == pytest.approx(1 - figures["accuracy"])
    assert [point["threshold"] for point in curve] == sorted((point["threshold"] for point in curve), reverse=True)


def test_predictions_are_uncertain_where_more_of_them_are_wrong_than_right() -> None:
    confidences = np.array([0.2] * 10 + [0.4] * 10 + [0.6] * 10 + [0.8] * 10)
    correct = np.array(([True] * 2 + [False] * 8) + ([True] * 4 + [False] * 6) + ([True] * 6 + [False] * 4) + [True] * 10)
    assert uncertain_below(confidences, correct) == 0.6
    assert uncertain_below(confidences, np.ones(40, bool)) == 0.0
    assert uncertain_below(confidences, np.zeros(40, bool)) == 1.0


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_threshold_is_one_half_where_confidence_is_honest_and_higher_where_it_boasts(temperature: float) -> None:
    logits, labels = drawn(1.0)
    uncertain = classification_figures(logits, labels, temperature=temperature, clean=None)["uncertain"]
    assert uncertain["threshold_low"] <= uncertain["threshold"] <= uncertain["threshold_high"]
    if temperature == 1.0:
        assert uncertain["threshold_low"] - 0.03 <= 0.5 <= uncertain["threshold_high"] + 0.03
    else:
        assert uncertain["threshold_low"] > 0.55


def test_intervals_narrow_with_more_pictures() -> None:
    logits, labels = drawn(1.0)
    few, many = (classification_figures(logits[:n], labels[:n], temperature=1.0, clean=None) for n in (400, 4000))
    for figures in (few, many):
        assert figures["macro_f1_low"] < figures["macro_f1"] < figures["macro_f1_high"]
        for part in figures["per_class"].values():
            assert all(part[f"{key}_interval"][0] < part[key] < part[f"{key}_interval"][1] for key in ("precision", "recall", "f1"))
    assert many["macro_f1_high"] - many["macro_f1_low"] < 0.5 * (few["macro_f1_high"] - few["macro_f1_low"])
