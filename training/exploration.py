"""What is worth looking at of a network's readings: mistakes, doubts, labels that look wrong, and why it reads as it does."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from batchemo.emotion.weights import Weights
from batchemo.errors import DataError
from batchemo.records import EMOTIONS
from training.calibration import calibrate
from training.dataset import VOTES, FaceSet
from training.evaluation import evaluate
from training.fitting import predict
from training.saliency import occlusion, tint
from training.votes import majority_emotion

_PER_PAIR = 6
_UNCERTAIN = 48
_LABEL_ERRORS = 60
_TINTED_PX = 144


class Reading(NamedTuple):
    """One picture and how it was read. `picture` is a data URI; `votes` a text, empty where none are known.

    `majority` is what most of FER+'s annotators chose: "label", "network", "other", or "" where they do not agree.
    """

    number: int
    name: str
    label: str
    read_as: str
    confidence: float
    of_label: float
    votes: str
    majority: str
    picture: str


class Pair(NamedTuple):
    """Pictures labelled as one emotion and read as another: how many, which share of the label, and the most confident."""

    label: str
    read_as: str
    total: int
    share: float
    readings: list[Reading]


class Explanation(NamedTuple):
    """A picture, and the same tinted by what speaks for (orange) and against (blue) the emotion it is read as."""

    reading: Reading
    tinted: str


@dataclasses.dataclass(frozen=True)
class Exploration:
    """All of a page; `figures` as `evaluation.evaluate` gives them. `majority_sides` counts the `majority` of all likely label errors."""

    split: str
    weights: str
    figures: dict[str, Any]
    pairs: list[Pair]
    uncertain: list[Reading]
    label_errors: list[Reading]
    n_label_errors: int
    majority_sides: dict[str, int]
    explanations: list[Explanation]


def explore(
    weights: Weights,
    faces: FaceSet,
    *,
    split: str,
    device: torch.device,
    chosen: Sequence[int] | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Exploration:
    """Reads `faces` and picks out what to look at; `chosen` are the numbers of pictures to explain, by default two of each emotion.

    Raises DataError for a number that no picture has.
    """
    wrong_numbers = [number for number in chosen or () if number >= len(faces)]
    if wrong_numbers:
        raise DataError(f"--face {wrong_numbers[0]}: {split} has {len(faces)} pictures, numbered from 0; give a smaller number")
    report(f"reading {len(faces)} pictures of {split}")
    network = weights.network.to(device)
    logits = predict(network, faces.pixels, device).numpy()
    read = _Read(faces, calibrate(logits, weights.temperature))
    suspects = read.likely_label_errors()
    numbers = read.to_explain() if chosen is None else list(chosen)
    report(f"explaining {len(numbers)} of them")
    drops = occlusion(
        network, faces.pixels[numbers], torch.from_numpy(read.predicted[numbers]), temperature=weights.temperature, device=device
    )
    tinted = [tint(faces.pixels[number, 0].numpy(), drop, side_px=_TINTED_PX) for number, drop in zip(numbers, drops, strict=True)]
    sides = [read.reading(number).majority for number in suspects]
    return Exploration(
        split=split,
        weights=weights.sha256,
        figures=evaluate(logits, read.labels, temperature=weights.temperature, clean=None),
        pairs=read.pairs(),
        uncertain=[read.reading(number) for number in np.argsort(read.confidences, kind="stable")[:_UNCERTAIN]],
        label_errors=[read.reading(number) for number in suspects[:_LABEL_ERRORS]],
        n_label_errors=len(suspects),
        majority_sides={side: sides.count(side) for side in ("network", "label", "other")},
        explanations=[Explanation(read.reading(number), _data_uri(picture)) for number, picture in zip(numbers, tinted, strict=True)],
    )


class _Read:
    """Pictures with their probabilities (N x 7)."""

    def __init__(self, faces: FaceSet, probabilities: NDArray[np.float64]) -> None:
        self.faces = faces
        self.probabilities = probabilities
        self.labels = faces.labels.numpy()
        self.predicted = probabilities.argmax(axis=1)
        self.confidences = probabilities.max(axis=1)
        self.of_label = probabilities[np.arange(len(faces)), self.labels]
        self.majority = None if faces.votes is None else majority_emotion(faces.votes).numpy()

    def reading(self, number: int) -> Reading:
        return Reading(
            number=int(number),
            name="" if self.faces.names is None else str(self.faces.names[number]),
            label=EMOTIONS[self.labels[number]],
            read_as=EMOTIONS[self.predicted[number]],
            confidence=float(self.confidences[number]),
            of_label=float(self.of_label[number]),
            votes=self._votes(number),
            majority=self._side(number),
            picture=_data_uri(self.faces.pixels[number, 0].numpy()),
        )

    def pairs(self) -> list[Pair]:
        """Every pair that occurs, the most frequent mistake first."""
        found = []
        for label, emotion in enumerate(EMOTIONS):
            of_label = self.labels == label
            for other, read_as in enumerate(EMOTIONS):
                (members,) = np.nonzero(of_label & (self.predicted == other))
                if label != other and len(members):
                    surest = members[np.argsort(-self.confidences[members], kind="stable")][:_PER_PAIR]
                    readings = [self.reading(number) for number in surest]
                    found.append(Pair(emotion, read_as, len(members), len(members) / int(of_label.sum()), readings))
        return sorted(found, key=lambda pair: -pair.total)

    def likely_label_errors(self) -> list[int]:
        """Numbers of pictures whose label looks wrong, the likeliest first: confident learning (Northcutt et al. 2021).

        Those are read as another emotion at least as confidently as, in the mean, pictures that are labelled so.
        """
        usual = np.array(
            [
                self.probabilities[self.labels == label, label].mean() if (self.labels == label).any() else 1.0
                for label in range(len(EMOTIONS))
            ]
        )
        (suspects,) = np.nonzero((self.predicted != self.labels) & (self.confidences >= usual[self.predicted]))
        order = np.argsort(self.of_label[suspects] - self.confidences[suspects], kind="stable")
        return [int(number) for number in suspects[order]]

    def to_explain(self) -> list[int]:
        """Of each label the picture that is read right, and the one that is read wrong, with most confidence."""
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
