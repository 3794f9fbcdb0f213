"""From a folder of the user's own faces to weights with their labels, and those labels in all that `batchemo run` writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import batchemo
from batchemo.emotion.model import ExpressionNet, NetworkSpec
from batchemo.emotion.weights import Weights, load_weights, save_weights
from batchemo.errors import DataError
from batchemo.faces.align import align_faces
from batchemo.faces.detector import MtcnnDetector
from batchemo.media.picture import read_picture
from batchemo.options import merge_options
from batchemo.records import EMOTIONS
from batchemo.report.summary import summarise
from batchemo.run.run import RunCallbacks, run_media
from tests.made_media import read_pixels
from tests.patterns import QUICK, Done
from training.data.fer2013 import FaceSet
from training.data.folders import read_labelled_folder
from training.data.synthetic import draw_face
from training.fit.finetuning import replace_head
from training.recipe import to_toml

SAMPLES = Path(__file__).parents[3] / "sample_media"
CPU = torch.device("cpu")
SHAPE: dict[str, Any] = {"stem": 8, "widths": (8, 16), "blocks": (1, 1)}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def start(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "start.safetensors"
    save_weights(path, ExpressionNet(NetworkSpec(**SHAPE)), labels=EMOTIONS, temperature=1.0, figures={})
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(dataclasses.replace(QUICK, epochs=2)))
    return path


def drawn(folder: Path, labels: dict[str, str], *, count: int, side: int = 48) -> Path:
    """`count` drawn faces for each label, of the emotion that it maps to."""
    random = np.random.default_rng(0)
    for label, emotion in labels.items():
        (folder / label).mkdir(parents=True)
        for index in range(count):
            picture = cv2.resize(draw_face(emotion, random), (side, side), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / label / f"{index}.png"), picture)
    return folder


LABELS = {"very bored": "neutral", "cheerful": "happy", "sad": "sad", "über": "surprise"}


@pytest.mark.slow
def test_labels_of_ones_own_reach_every_table(run: Callable[..., Done], start: Path, recipe: Path, tmp_path: Path) -> None:
    mine = drawn(tmp_path / "mine", LABELS, count=10)
    out = tmp_path / "out"
    code, printed, messages = run("finetune", mine, "--start", start, "--recipe", recipe, "--out", out)
    weights = out / "weights.safetensors"
    assert (code, printed) == (0, f"{weights}\n")
    assert f"batchemo run INPUT --out results --weights {weights}" in messages
    loaded = load_weights(weights)
    labels = ("sad", "cheerful", "very bored", "über")  # those that the first weights knew come first
    assert loaded.labels == labels
    assert (loaded.figures["n"], loaded.figures["split"]) == (8, "a fifth of the pictures")
    assert loaded.figures["start_sha256"] == load_weights(start).sha256

    results = tmp_path / "results"
    silent = RunCallbacks(started=lambda _plan, _heartbeats: None, finished=lambda _row: None)
    options = merge_options({"workers": 1, "weights": weights, "sample_fps": 2.0}, environment={})
    report = run_media([SAMPLES / "grace_hopper.jpg", SAMPLES / "two_people_and_a_cut.mp4"], results, options, silent)
    assert not report.failed
    faces = batchemo.load(results)
    assert [column for column in map(str, faces) if column.startswith("p_")] == [f"p_{label}" for label in labels]
    assert np.allclose(faces[[f"p_{label}" for label in labels]].sum(axis=1), 1, atol=1e-5)
    assert set(faces["emotion"]) <= set(labels)
    tracks = batchemo.load(results, table="tracks")
    assert [column for column in map(str, tracks) if column.startswith("share_")] == [f"share_{label}" for label in labels]
    assert np.allclose(tracks[[f"share_{label}" for label in labels]].sum(axis=1), 1)
    assert set(batchemo.load(results, table="episodes")["emotion"]) <= set(labels)
    assert set(summarise(results).total.shares) == set(labels)
    assert len(list((results / "annotated").iterdir())) == 2


def test_results_of_two_sets_of_labels_are_read_together(start: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    two = ExpressionNet(NetworkSpec(classes=2, **SHAPE))
    save_weights(other, two, labels=("yes", "no"), temperature=1.0, figures={})
    silent = RunCallbacks(started=lambda _plan, _heartbeats: None, finished=lambda _row: None)
    results = tmp_path / "results"
    for weights, picture in ((start, "grace_hopper.jpg"), (other, "eileen_collins.jpg")):
        folder = tmp_path / picture
        folder.mkdir()
        (folder / picture).write_bytes((SAMPLES / picture).read_bytes())
        options = merge_options({"workers": 1, "weights": weights, "annotate": False, "uncertain_below": 0.0}, environment={})
        run_media([folder], results, options, silent)
    faces = batchemo.load(results)
    assert {"p_angry", "p_yes"} <= set(faces.columns)
    assert faces[["p_angry", "p_yes"]].isna().sum().tolist() == [1, 1]
    summary = summarise(results)
    assert set(summary.total.shares) == {*EMOTIONS, "yes", "no"}
    assert sum(summary.total.shares.values()) == pytest.approx(1)


def test_faces_in_photographs_are_cut_as_a_run_cuts_them(run: Callable[..., Done], start: Path, recipe: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    for label, name in (("on earth", "grace_hopper.jpg"), ("in space", "eileen_collins.jpg")):
        (mine / label).mkdir(parents=True)
        picture = read_pixels(SAMPLES / name)
        for index in range(5):
            cv2.imwrite(str(mine / label / f"{index}.png"), np.roll(picture, index, axis=1))
    cv2.imwrite(str(mine / "on earth" / "empty.png"), np.full((80, 80), 128, np.uint8))
    out = tmp_path / "out"
    code, _, messages = run("finetune", mine, "--find-faces", "--start", start, "--recipe", recipe, "--out", out, "--epochs", 1)
    assert code == 0
    assert "no face found in 1 pictures, which are left out" in messages
    assert "empty.png" in messages
    crops = sorted(path.relative_to(out / "crops").as_posix() for path in (out / "crops").rglob("*.png"))
    assert crops == [f"{label}/{index}.png.png" for label in ("in space", "on earth") for index in range(5)]
    picture = read_picture(mine / "on earth" / "3.png")
    (found,) = MtcnnDetector(device=CPU).detect([picture])
    expected = align_faces(picture, found).pixels[0]
    assert np.array_equal(read_pixels(out / "crops" / "on earth" / "3.png.png", cv2.IMREAD_GRAYSCALE), expected)


def test_what_a_network_knew_of_its_labels_it_keeps() -> None:
    torch.manual_seed(3)
    old = ExpressionNet(NetworkSpec(**SHAPE)).eval()
    faces = FaceSet(torch.randint(0, 256, (4, 1, 48, 48), dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    new = replace_head(Weights(old, EMOTIONS, 1.0, "", {}), ("sad", "happy"), faces, device=CPU)
    with torch.inference_mode():
        known = old(faces.pixels)[:, [EMOTIONS.index("sad"), EMOTIONS.index("happy")]]
        assert torch.allclose(new(faces.pixels), known, atol=1e-5)


@pytest.mark.parametrize("labels", [("a", "b"), ("a", "b", "sad")])
def test_a_head_for_other_labels_begins_as_a_regression(labels: tuple[str, ...]) -> None:
    torch.manual_seed(3)
    old = ExpressionNet(NetworkSpec(**SHAPE)).eval()
    random = np.random.default_rng(1)
    pixels = np.stack([draw_face(emotion, random)[None] for emotion in ("happy", "surprise", "angry")[: len(labels)] for _ in range(20)])
    faces = FaceSet(torch.from_numpy(pixels), torch.arange(len(labels)).repeat_interleave(20))
    new = replace_head(Weights(old, EMOTIONS, 1.0, "", {}), labels, faces, device=CPU)
    with torch.inference_mode():
        features = old.features(faces.pixels).numpy()
        model = LogisticRegression(C=0.01, max_iter=5000).fit(features, faces.labels.numpy())
        assert np.allclose(torch.softmax(new(faces.pixels), 1), model.predict_proba(features), atol=1e-4)


def test_emotions_of_fer2013_keep_their_order_and_large_crops_are_shrunk_by_area(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "mine", {"sad": "sad", "angry": "angry", "happy": "happy"}, count=2, side=96)
    (folder / ".hidden").mkdir()
    found = read_labelled_folder(folder, known=EMOTIONS)
    assert found.labels == ("angry", "happy", "sad")
    assert found.counts() == {"angry": 2, "happy": 2, "sad": 2}
    first = read_pixels(folder / "angry" / "0.png", cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(found.faces.pixels[0, 0].numpy(), cv2.resize(first, (48, 48), interpolation=cv2.INTER_AREA))


def test_other_pictures_can_be_held_back(run: Callable[..., Done], start: Path, recipe: Path, tmp_path: Path) -> None:
    labels = {"a": "happy", "b": "sad"}
    mine = drawn(tmp_path / "mine", labels, count=4)
    others = drawn(tmp_path / "others", labels, count=9)
    arguments = ("finetune", mine, "--start", start, "--recipe", recipe, "--held-back", others, "--out", tmp_path / "out", "--epochs", 1)
    # All of a label's pictures were drawn by one seed, so the first four stand in both.
    assert run(*arguments)[0] == 0
    assert load_weights(tmp_path / "out" / "weights.safetensors").figures["n"] == 18
    (others / "b").rename(others / "c")
    code, _, messages = run(*arguments)
    assert code == 2
    assert "others has the labels a, c" in messages


def test_a_run_does_not_go_on_from_other_first_weights(run: Callable[..., Done], start: Path, recipe: Path, tmp_path: Path) -> None:
    mine = drawn(tmp_path / "mine", {"a": "happy", "b": "sad"}, count=5)
    arguments = ("finetune", mine, "--recipe", recipe, "--out", tmp_path / "out", "--start")
    assert run(*arguments, start)[0] == 0
    before = (tmp_path / "out" / "weights.safetensors").read_bytes()
    other = tmp_path / "other.safetensors"
    torch.manual_seed(9)
    save_weights(other, ExpressionNet(NetworkSpec(**SHAPE)), labels=EMOTIONS, temperature=1.0, figures={})
    code, _, messages = run(*arguments, other)
    assert code == 2
    assert "began with other weights" in messages
    assert (tmp_path / "out" / "weights.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("labels", "count", "message"),
    [
        ({"a": "happy"}, 5, "has 1 folders, where there must be two labels at least"),
        ({"a": "happy", "b": "sad"}, 4, "a: 4 faces are too few; 5 are the least"),
        ({"a": "happy", "b\n": "sad"}, 5, "rename the folder"),
        ({"a": "happy", "b": "sad"}, 0, "has no pictures"),
    ],
)
def test_folders_that_cannot_be_learnt_from_are_refused(
    labels: dict[str, str], count: int, message: str, run: Callable[..., Done], start: Path, recipe: Path, tmp_path: Path
) -> None:
    mine = drawn(tmp_path / "mine", labels, count=count)
    code, _, messages = run("finetune", mine, "--start", start, "--recipe", recipe, "--out", tmp_path / "out")
    assert code == 2
    assert message in messages
    assert messages.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "out" / "weights.safetensors").exists()


def test_broken_pictures_and_missing_folders_are_named(run: Callable[..., Done], start: Path, tmp_path: Path) -> None:
    code, _, messages = run("finetune", tmp_path / "none", "--start", start)
    assert code == 2
    assert "none is no folder" in messages
    mine = drawn(tmp_path / "mine", {"a": "happy", "b": "sad"}, count=5)
    (mine / "b" / "3.png").write_bytes(b"no picture")
    code, _, messages = run("finetune", mine, "--start", start)
    assert code == 2
    assert "3.png" in messages


def test_a_label_without_any_face_is_named(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        cv2.imwrite(str(tmp_path / label / "black.png"), np.zeros((64, 64), np.uint8))
    with pytest.raises(DataError, match="a: no face was found in any of its 1 pictures"):
        read_labelled_folder(tmp_path, known=EMOTIONS, detector=MtcnnDetector(device=CPU))


def test_pictures_that_are_no_crops_are_remarked_upon(run: Callable[..., Done], start: Path, recipe: Path, tmp_path: Path) -> None:
    mine = drawn(tmp_path / "mine", {"a": "happy", "b": "sad"}, count=5)
    cv2.imwrite(str(mine / "a" / "wide.png"), np.random.default_rng(0).integers(0, 255, (90, 160), np.uint8))
    code, _, messages = run("finetune", mine, "--start", start, "--recipe", recipe, "--out", tmp_path / "out", "--epochs", 1)
    assert code == 0
    assert "1 pictures are far from square" in messages
