"""Writes a web page of a network's predictions: mistakes, uncertain pictures, likely label errors, and saliency.

The page is one file that needs no network; all text is escaped.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from batchemo.atomic import write_text
from batchemo.emotion.weights import Weights
from batchemo.errors import DataError
from batchemo.records import EMOTIONS
from training.data.fer2013 import VOTES, FaceSet
from training.data.votes import majority_emotion
from training.evaluate.calibration import calibrate
from training.evaluate.classification import classification_figures
from training.evaluate.saliency import PATCH_PX, occlusion_map, tint_saliency
from training.inference import predict

_TEMPLATE = "explore.html"
_PER_PAIR = 6
_UNCERTAIN = 48
_LABEL_ERRORS = 60
_TINTED_PX = 144


class Prediction(NamedTuple):
    """One picture and its prediction. `picture` is a data URI; `votes` is a text, empty if unknown.

    `majority` says with whom FER+'s majority agrees: "label", "network", "other", or "" without a majority.
    """

    number: int
    name: str
    label: str
    predicted: str
    confidence: float
    of_label: float
    votes: str
    majority: str
    picture: str


class ConfusedPair(NamedTuple):
    """A cell of the confusion matrix off the diagonal: the count (`total`), its share of the label, and the most confident pictures."""

    label: str
    predicted: str
    total: int
    share: float
    predictions: list[Prediction]


class Explanation(NamedTuple):
    """A prediction, and its picture tinted by its saliency (a data URI)."""

    prediction: Prediction
    tinted: str


@dataclasses.dataclass(frozen=True)
class Exploration:
    """The content of a page. `figures` are of `classification_figures`; `majority_sides` counts the `majority` of likely label errors."""

    split: str
    weights: str
    figures: dict[str, Any]
    pairs: list[ConfusedPair]
    uncertain: list[Prediction]
    label_errors: list[Prediction]
    n_label_errors: int
    majority_sides: dict[str, int]
    explanations: list[Explanation]


def explore_predictions(
    weights: Weights,
    faces: FaceSet,
    *,
    split: str,
    device: torch.device,
    chosen: Sequence[int] | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Exploration:
    """Runs inference on `faces` and selects what the page shows. `chosen` are the numbers of pictures to explain, by default two of each
    emotion.

    Raises DataError for a number that no picture has.
    """
    wrong_numbers = [number for number in chosen or () if number >= len(faces)]
    if wrong_numbers:
        raise DataError(f"--face {wrong_numbers[0]}: {split} has {len(faces)} pictures, numbered from 0; give a smaller number")
    report(f"inference on {len(faces)} pictures of {split}")
    network = weights.network.to(device)
    logits = predict(network, faces.pixels, device).numpy()
    made = _Predictions(faces, calibrate(logits, weights.temperature))
    suspects = made.likely_label_errors()
    numbers = made.to_explain() if chosen is None else list(chosen)
    report(f"saliency of {len(numbers)} of them")
    drops = occlusion_map(
        network, faces.pixels[numbers], torch.from_numpy(made.predicted[numbers]), temperature=weights.temperature, device=device
    )
    tinted = [tint_saliency(faces.pixels[number, 0].numpy(), drop, side_px=_TINTED_PX) for number, drop in zip(numbers, drops, strict=True)]
    sides = [made.prediction(number).majority for number in suspects]
    return Exploration(
        split=split,
        weights=weights.sha256,
        figures=classification_figures(logits, made.labels, temperature=weights.temperature, clean=None),
        pairs=made.pairs(),
        uncertain=[made.prediction(number) for number in np.argsort(made.confidences, kind="stable")[:_UNCERTAIN]],
        label_errors=[made.prediction(number) for number in suspects[:_LABEL_ERRORS]],
        n_label_errors=len(suspects),
        majority_sides={side: sides.count(side) for side in ("network", "label", "other")},
        explanations=[Explanation(made.prediction(number), _data_uri(picture)) for number, picture in zip(numbers, tinted, strict=True)],
    )


def write_page(path: Path, exploration: Exploration) -> None:
    """Writes the page to `path`, atomically."""
    write_text(path, render_page(exploration))


def render_page(exploration: Exploration) -> str:
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    confusion = [
        {
            "label": label,
            "cells": [
                {"count": count, "share": count / max(1, sum(counts)), "predicted": other}
                for other, count in zip(EMOTIONS, counts, strict=True)
            ],
        }
        for label, counts in zip(EMOTIONS, exploration.figures["confusion"], strict=True)
    ]
    return environment.get_template(_TEMPLATE).render(found=exploration, confusion=confusion, emotions=EMOTIONS, patch_px=PATCH_PX)


class _Predictions:
    """Pictures with their probabilities (N x 7)."""

    def __init__(self, faces: FaceSet, probabilities: NDArray[np.float64]) -> None:
        self.faces = faces
        self.probabilities = probabilities
        self.labels = faces.labels.numpy()
        self.predicted = probabilities.argmax(axis=1)
        self.confidences = probabilities.max(axis=1)
        self.of_label = probabilities[np.arange(len(faces)), self.labels]
        self.majority = None if faces.votes is None else majority_emotion(faces.votes).numpy()

    def prediction(self, number: int) -> Prediction:
        return Prediction(
            number=int(number),
            name="" if self.faces.names is None else str(self.faces.names[number]),
            label=EMOTIONS[self.labels[number]],
            predicted=EMOTIONS[self.predicted[number]],
            confidence=float(self.confidences[number]),
            of_label=float(self.of_label[number]),
            votes=self._votes(number),
            majority=self._side(number),
            picture=_data_uri(self.faces.pixels[number, 0].numpy()),
        )

    def pairs(self) -> list[ConfusedPair]:
        """All pairs with at least one picture, the most frequent first."""
        found = []
        for label, emotion in enumerate(EMOTIONS):
            of_label = self.labels == label
            for other, predicted in enumerate(EMOTIONS):
                (members,) = np.nonzero(of_label & (self.predicted == other))
                if label != other and len(members):
                    surest = members[np.argsort(-self.confidences[members], kind="stable")][:_PER_PAIR]
                    predictions = [self.prediction(number) for number in surest]
                    found.append(ConfusedPair(emotion, predicted, len(members), len(members) / int(of_label.sum()), predictions))
        return sorted(found, key=lambda pair: -pair.total)

    def likely_label_errors(self) -> list[int]:
        """Numbers of pictures whose label is probably wrong, the likeliest first, by confident learning (Northcutt et al. 2021).

        Such a picture is predicted as another emotion, with at least the mean confidence of the pictures that have that label.
        """
        mean_confidence = np.array(
            [
                self.probabilities[self.labels == label, label].mean() if (self.labels == label).any() else 1.0
                for label in range(len(EMOTIONS))
            ]
        )
        (suspects,) = np.nonzero((self.predicted != self.labels) & (self.confidences >= mean_confidence[self.predicted]))
        order = np.argsort(self.of_label[suspects] - self.confidences[suspects], kind="stable")
        return [int(number) for number in suspects[order]]

    def to_explain(self) -> list[int]:
        """The most confident right and the most confident wrong prediction of each label."""
        numbers = []
        for label in range(len(EMOTIONS)):
            for right in (True, False):
                (members,) = np.nonzero((self.labels == label) & ((self.predicted == label) == right))
                if len(members):
                    numbers.append(int(members[self.confidences[members].argmax()]))
        return numbers

    def _votes(self, number: int) -> str:
        if self.faces.votes is None:
            return ""
        counts = self.faces.votes[number].tolist()
        given = sorted(((count, vote) for count, vote in zip(counts, VOTES, strict=True) if count), key=lambda item: -item[0])
        return ", ".join(f"{count} {'not a face' if vote == 'NF' else vote}" for count, vote in given)

    def _side(self, number: int) -> str:
        if self.majority is None or self.majority[number] < 0:
            return ""
        sides = {int(self.labels[number]): "label", int(self.predicted[number]): "network"}
        return sides.get(int(self.majority[number]), "other")


def _data_uri(picture: NDArray[np.uint8]) -> str:
    _, content = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return "data:image/png;base64," + base64.b64encode(content.tobytes()).decode()
