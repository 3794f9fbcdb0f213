"""Figures of a network: computed by hand for small cases, calibrated, against votes, on degraded pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from patterns import Done, pattern, write_votes
from sklearn.metrics import f1_score

from batchemo.errors import DataError
from batchemo.network import ExpressionNet
from batchemo.records import EMOTIONS
from batchemo.weights import save_weights
from training.data.dataset import read_splits
from training.data.votes import EMOTION_OF_VOTE
from training.evaluate.calibration import calibrate, cross_calibrate, expected_calibration_error, fit_temperature
from training.evaluate.classification import classification_figures, evaluate_against_votes
from training.evaluate.degradation import DEGRADATIONS, degrade
from training.evaluate.risk_coverage import POINTS, risk_coverage, uncertain_below

EMOTION_TO_VOTE = {emotion: vote for vote, emotion in EMOTION_OF_VOTE.items()}


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


# Risk and coverage


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


# Votes


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


# Degraded pictures


def face_like() -> NDArray[np.uint8]:
    """A bright spot a third of the way from the left and top, on grey, smooth."""
    rows, columns = np.mgrid[0:48, 0:48]
    return np.asarray(60 + 150 * np.exp(-((rows - 16) ** 2 + (columns - 16) ** 2) / 30), np.uint8)


def spot(picture: NDArray[np.uint8]) -> tuple[float, float]:
    """Where the bright spot is: row, column."""
    light = picture.astype(float) - picture.min()
    return tuple(float((light * axis).sum() / light.sum()) for axis in np.mgrid[0:48, 0:48])


@pytest.mark.parametrize(("name", "down", "right"), [("left", 0, -4.8), ("right", 0, 4.8), ("up", -4.8, 0), ("down", 4.8, 0)])
def test_shifts_move_by_a_tenth_of_the_side(name: str, down: float, right: float) -> None:
    before, after = spot(face_like()), spot(DEGRADATIONS[name].change(face_like()))
    assert (after[0] - before[0], after[1] - before[1]) == (pytest.approx(down, abs=0.3), pytest.approx(right, abs=0.3))


def test_scales_and_turns_keep_the_centre() -> None:
    before = np.array(spot(face_like())) - 23.5
    for name, scale in (("larger", 1.1), ("smaller", 0.9)):
        assert np.array(spot(DEGRADATIONS[name].change(face_like()))) - 23.5 == pytest.approx(scale * before, abs=0.3)
    angle = math.radians(8)
    for name, sign in (("anticlockwise", 1), ("clockwise", -1)):
        # Rows count downwards.
        row = before[0] * math.cos(angle) - sign * before[1] * math.sin(angle)
        column = sign * before[0] * math.sin(angle) + before[1] * math.cos(angle)
        assert np.array(spot(DEGRADATIONS[name].change(face_like()))) - 23.5 == pytest.approx((row, column), abs=0.3)


def test_light_is_bent_not_clipped() -> None:
    grey = np.full((48, 48), 128, np.uint8)
    assert (DEGRADATIONS["dark"].change(grey) == round(255 * (128 / 255) ** 2.2)).all()
    assert (DEGRADATIONS["bright"].change(grey) == round(255 * (128 / 255) ** (1 / 2.2))).all()


def test_detail_is_lost() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 48), np.uint8)
    for name, most in (("small", 60), ("blur", 40), ("jpeg", 80)):
        changed = DEGRADATIONS[name].change(noise)
        assert changed.std() < most, name
        assert changed.mean() == pytest.approx(noise.mean(), abs=5)
    assert noise.std() > 70


def test_every_degradation_is_a_change_of_whole_sets() -> None:
    pixels = torch.from_numpy(np.stack([pattern(label, 0) for label in range(3)])[:, None])
    before = pixels.clone()
    for name, degradation in DEGRADATIONS.items():
        changed = degrade(pixels, degradation)
        assert (changed.shape, changed.dtype) == (pixels.shape, torch.uint8)
        assert not torch.equal(changed, pixels), name
    assert torch.equal(pixels, before)


# Command line


@pytest.fixture
def weights(fitted: ExpressionNet, tmp_path: Path) -> Path:
    save_weights(tmp_path / "net.safetensors", fitted, labels=EMOTIONS, temperature=1.2, figures={})
    return tmp_path / "net.safetensors"


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
