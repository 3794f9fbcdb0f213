"""Calibration: the temperature undoes overconfidence, and the error is that of the definition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluate.calibration import calibrate, cross_calibrate, expected_calibration_error, fit_temperature


def test_calibration_error_of_honest_and_of_overconfident_predictions() -> None:
    correct = np.tile([True, True, True, True, False], 60)
    assert expected_calibration_error(np.full(300, 0.8), correct) == pytest.approx(0, abs=1e-12)
    assert expected_calibration_error(np.full(300, 0.99), correct) == pytest.approx(0.19)
    assert expected_calibration_error(np.full(300, 0.5), correct) == pytest.approx(0.3)
    right = np.tile([True, False], 150)
    assert expected_calibration_error(np.where(right, 0.9, 0.7), right, bins=2) == pytest.approx((0.1 + 0.7) / 2)
    assert expected_calibration_error(np.where(right, 0.8, 0.2), ~right, bins=2) == pytest.approx(0.8)  # errors of either sign add up


def drawn(scale: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits, times `scale`, of 4,000 pictures whose labels are drawn by the probabilities of the unscaled logits."""
    random = np.random.default_rng(7)
    logits = random.normal(0, 1.5, (4000, 7))
    labels = np.array([random.choice(7, p=row) for row in calibrate(logits, 1.0)])
    return logits * scale, labels


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_overconfidence(scale: float) -> None:
    logits, labels = drawn(scale)
    assert fit_temperature(logits, labels) == pytest.approx(scale, rel=0.06)
    crossed = cross_calibrate(logits, labels)
    assert expected_calibration_error(crossed.max(1), crossed.argmax(1) == labels) < 0.03
    assert np.array_equal(crossed.argmax(1), logits.argmax(1))


def test_no_picture_calibrates_itself() -> None:
    right, wrong = [3.0, 0, 0, 0, 0, 0, 0], [0, 3.0, 0, 0, 0, 0, 0]
    probabilities = cross_calibrate(np.array([right, wrong]), np.array([0, 0]))
    assert probabilities[0, 0] < 0.2  # by the temperature of the picture that is read wrong
    assert probabilities[1, 1] > 0.999
