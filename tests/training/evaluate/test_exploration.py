"""`python -m training explore`: what is picked out is what should be looked at, and the page holds it all, safely."""

from __future__ import annotations

import base64
import html.parser
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from batchemo.emotion.model import ExpressionNet
from batchemo.emotion.weights import Weights, save_weights
from batchemo.records import EMOTIONS
from tests.patterns import CPU, Done, pattern
from training.data.fer2013 import VOTES, FaceSet, read_split
from training.evaluate.exploration import Exploration, explore_predictions, render_page
from training.evaluate.saliency import occlusion_map, tint_saliency

HAPPY, SAD = EMOTIONS.index("happy"), EMOTIONS.index("sad")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def weights(fitted: ExpressionNet) -> Weights:
    return Weights(fitted, EMOTIONS, 1.0, "a" * 64, {})


@pytest.fixture
def mislabelled(data: Path) -> FaceSet:
    """PublicTest with its first picture of happy called sad; annotators saw happiness in it, and in none of the others anything."""
    faces = read_split(data, "PublicTest")
    labels, votes = faces.labels.clone(), torch.zeros(len(faces), len(VOTES), dtype=torch.int64)
    victim = int((labels == HAPPY).nonzero()[0])
    labels[victim] = SAD
    votes[victim, VOTES.index("happiness")], votes[victim, VOTES.index("NF")] = 9, 1
    names = np.array([f"<script>alert({number})</script>&amp;" for number in range(len(faces))])
    return FaceSet(faces.pixels, labels, votes, names)


@pytest.fixture
def found(weights: Weights, mislabelled: FaceSet) -> Exploration:
    return explore_predictions(weights, mislabelled, split="PublicTest", device=CPU)


def test_a_wrong_label_is_found_with_its_votes(found: Exploration, mislabelled: FaceSet) -> None:
    victim = next(prediction for prediction in found.label_errors if "happiness" in prediction.votes)
    assert (victim.label, victim.predicted, victim.majority) == ("sad", "happy", "network")
    assert victim.votes == "9 happiness, 1 not a face"
    assert mislabelled.labels[victim.number] == SAD
    assert found.majority_sides == {"network": 1, "label": 0, "other": 0}
    assert all(prediction.label != prediction.predicted for prediction in found.label_errors)


def test_pairs_are_the_confusion_matrix(found: Exploration) -> None:
    confusion = np.array(found.figures["confusion"])
    assert sum(pair.total for pair in found.pairs) == confusion.sum() - np.trace(confusion)
    for pair in found.pairs:
        assert pair.total == confusion[EMOTIONS.index(pair.label), EMOTIONS.index(pair.predicted)]
        assert pair.share == pytest.approx(pair.total / confusion[EMOTIONS.index(pair.label)].sum())
        assert {(prediction.label, prediction.predicted) for prediction in pair.predictions} == {(pair.label, pair.predicted)}
        confidences = [prediction.confidence for prediction in pair.predictions]
        assert confidences == sorted(confidences, reverse=True)
    assert ("sad", "happy") in {(pair.label, pair.predicted) for pair in found.pairs}


def test_doubts_are_the_least_confident(found: Exploration, weights: Weights, mislabelled: FaceSet) -> None:
    with torch.inference_mode():
        least = weights.network(mislabelled.pixels).softmax(1).max(1).values.min()
    assert found.uncertain[0].confidence == pytest.approx(float(least), abs=1e-5)
    confidences = [prediction.confidence for prediction in found.uncertain]
    assert confidences == sorted(confidences)


class Collector(html.parser.HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_no_network_and_takes_names_as_text(found: Exploration) -> None:
    text = render_page(found)
    page = Collector()
    page.feed(text)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"}
    assert "<script>alert(0)</script>&amp;" in page.text
    assert all(str(attributes["src"]).startswith("data:image/png;base64,") for tag, attributes in page.tags if tag == "img")
    assert not re.search(r"https?://", text)
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {str(attributes["href"]) for tag, attributes in page.tags if tag == "a"} <= {f"#{anchor}" for anchor in anchors}
    assert "sad-happy" in anchors
    assert page.text.count("FER+: 9 happiness, 1 not a face") >= 2  # among the label errors, and in its pair


def test_pictures_in_the_page_are_those_of_the_data(found: Exploration, mislabelled: FaceSet) -> None:
    prediction = found.uncertain[0]
    content = base64.b64decode(prediction.picture.removeprefix("data:image/png;base64,"))
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert np.array_equal(picture, mislabelled.pixels[prediction.number, 0].numpy())


class Spot(torch.nn.Module):
    """Sees one emotion in a bright spot at the top left of a picture, and the opposite of it at the bottom right."""

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        scaled = crops.float() / 255
        logits = torch.zeros(len(crops), 7)
        logits[:, HAPPY] = 4 * (scaled[:, 0, 4:12, 4:12].mean((1, 2)) - scaled[:, 0, 36:44, 36:44].mean((1, 2)))
        return logits


def test_occlusion_finds_what_speaks_for_an_emotion_and_against_it() -> None:
    picture = torch.full((1, 1, 48, 48), 100, dtype=torch.uint8)
    picture[0, 0, 4:12, 4:12] = picture[0, 0, 36:44, 36:44] = 250
    drops = occlusion_map(Spot(), picture, torch.tensor([HAPPY]), temperature=1.0, device=CPU)[0]  # type: ignore[arg-type]
    assert np.unravel_index(drops.argmax(), drops.shape) < (14, 14)
    assert np.unravel_index(drops.argmin(), drops.shape) > (34, 34)
    assert drops[8, 8] > 0.1
    assert drops[40, 40] < -0.1
    assert drops[24, 24] == pytest.approx(0, abs=1e-6)
    blue, _, red = tint_saliency(picture[0, 0].numpy(), drops, side_px=48).astype(int)[[8, 40], [8, 40]].T
    assert red[0] > blue[0]
    assert blue[1] > red[1]


@pytest.mark.slow
def test_a_page_explains_the_chosen_faces(run: Callable[..., Done], fitted: ExpressionNet, data: Path, tmp_path: Path) -> None:
    save_weights(tmp_path / "net.safetensors", fitted, labels=EMOTIONS, temperature=1.0, figures={})
    page = tmp_path / "page.html"
    done = run("explore", tmp_path / "net.safetensors", "--data", data, "--face", 5, "--face", 2, "--out", page)
    assert (done.code, done.out) == (0, f"{page}\n")
    explained = page.read_text().split('id="explained"')[1].split('id="uncertain"')[0]
    assert re.findall(r"no\. (\d+)", explained) == ["5", "2"]
    done = run("explore", tmp_path / "net.safetensors", "--data", data, "--face", 56, "--out", tmp_path / "other.html")
    assert done.code == 2
    assert "--face 56: PublicTest has 56 pictures" in done.err
    assert not (tmp_path / "other.html").exists()


def test_an_emotion_that_is_not_there_stops_nothing(weights: Weights) -> None:
    pixels = torch.from_numpy(np.stack([pattern(HAPPY, seed) for seed in range(3)])[:, None])
    found = explore_predictions(weights, FaceSet(pixels, torch.full((3,), HAPPY)), split="Training", device=CPU)
    assert len(found.uncertain) == 3
    assert "Predictions for Training" in render_page(found)
