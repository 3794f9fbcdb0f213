"""Cross-validation: folds are even, copies stay together, and no network predicts what it was trained on."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from batchemo.emotion.model import ExpressionNet
from batchemo.errors import DataError
from batchemo.records import EMOTIONS
from tests.patterns import CPU, QUICK, Done, write_csv
from training.data.duplicates import group_similar
from training.data.fer2013 import FaceSet
from training.fit import run as run_module
from training.fit.cross_validation import PREDICTIONS, assign_folds, cross_validate
from training.fit.trainer import Epoch, fit_network
from training.inference import predict
from training.recipe import Recipe, to_toml

RECIPE = dataclasses.replace(QUICK, batch_size=8)

pytestmark = pytest.mark.usefixtures("one_thread")


def pictures(count: int, seed: int = 0) -> Tensor:
    """Blocks of random greys, no two alike."""
    blocks = torch.randint(20, 236, (count, 1, 8, 8), generator=torch.Generator().manual_seed(seed)).float()
    return functional.interpolate(blocks, scale_factor=6).to(torch.uint8)


def labelled(pixels: Tensor) -> FaceSet:
    return FaceSet(pixels, torch.arange(len(pixels)) % 7)


def as_bytes(faces: FaceSet) -> set[bytes]:
    return {picture.numpy().tobytes() for picture in faces.pixels}


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return labelled(pictures(42))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows: list[tuple[object, object, object]] = []
    for usage, seed in (("Training", 0), ("PublicTest", 1)):
        rows += [(n % 7, " ".join(map(str, picture.flatten().tolist())), usage) for n, picture in enumerate(pictures(42, seed))]
    return write_csv(tmp_path / "fer2013.csv", rows)


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    (tmp_path / "small.toml").write_text(to_toml(dataclasses.replace(RECIPE, epochs=2)))
    return tmp_path / "small.toml"


# Folds


def test_folds_have_every_picture_once_and_equal_shares_of_each_label() -> None:
    faces = labelled(pictures(126))
    fold_of = assign_folds(faces, folds=3, seed=4)
    assert torch.bincount(fold_of).tolist() == [42, 42, 42]
    for number in range(3):
        assert torch.bincount(faces.labels[fold_of == number]).tolist() == [6] * 7
    assert torch.equal(fold_of, assign_folds(faces, folds=3, seed=4))
    assert not torch.equal(fold_of, assign_folds(faces, folds=3, seed=5))


def test_copies_are_in_the_fold_of_their_original() -> None:
    pixels = pictures(70)
    brighter = (pixels[:8].float() * 0.8 + 30).round().to(torch.uint8)
    cut_anew = functional.interpolate(pixels[8:16, :, 1:, :-1].float(), size=(48, 48), mode="bilinear").round().to(torch.uint8)
    blank = torch.full((2, 1, 48, 48), 7, dtype=torch.uint8)
    parts = (pixels, pixels[20:30], pixels[20:24], brighter, cut_anew, blank)
    faces = labelled(torch.cat(parts))  # copies have other labels than their originals
    for seed in range(3):
        original, same, again, bright, cut, empty = assign_folds(faces, folds=3, seed=seed).split([len(part) for part in parts])
        assert torch.equal(same, original[20:30])
        assert torch.equal(again, original[20:24])
        assert torch.equal(bright, original[:8])
        assert torch.equal(cut, original[8:16])
        assert len(set(empty.tolist())) == 1
    assert len(group_similar(pixels).unique()) == len(pixels)


def test_too_few_pictures_of_a_label_for_the_folds_are_refused() -> None:
    pixels = pictures(28)
    pixels[7::7] = pixels[0]
    with pytest.raises(DataError, match="1 different pictures of angry do not fill 3 folds; lower --folds"):
        assign_folds(labelled(pixels), folds=3, seed=0)


# Who predicts what


@pytest.mark.slow
@pytest.mark.parametrize("folds", [2, 3])
def test_no_network_predicts_a_picture_that_it_was_trained_on(
    folds: int, faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=2, sizes=(24, 32), size_shares=(0.5, 0.5))
    trained: list[tuple[FaceSet, ExpressionNet]] = []

    def recording(recipe: Recipe, faces: FaceSet, **rest: object) -> ExpressionNet:
        network = fit_network(recipe, faces, **rest)  # type: ignore[arg-type]
        trained.append((faces, network))
        return network

    monkeypatch.setattr(run_module, "fit_network", recording)
    repeated = labelled(torch.cat([faces.pixels, faces.pixels[3:12]]))
    probabilities, fold_of = cross_validate(recipe, repeated, folds=folds, folder=tmp_path, device=CPU)
    assert len(trained) == folds
    for number, (known, network) in enumerate(trained):
        new = torch.tensor([picture.numpy().tobytes() not in as_bytes(known) for picture in repeated.pixels])
        assert torch.equal(new, fold_of == number)
        small = functional.interpolate(repeated.pixels[new].float() / 255, size=(32, 32), mode="bilinear", antialias=True)
        logits = (predict(network, small, CPU) + predict(network, small.flip(3), CPU)) / 2
        assert torch.allclose(probabilities[new], logits.softmax(dim=1), atol=1e-5)
        assert len(known) + int(new.sum()) == len(repeated)
    assert torch.allclose(probabilities[3:12], probabilities[42:], atol=1e-5)


# The command


def test_the_command_writes_a_row_a_picture_and_resumes(
    run: Callable[..., Done], recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run("cross", recipe_file, "--data", data, "--folds", 2, "--out", tmp_path / "whole", "--device", "cpu")
    path = tmp_path / "whole" / PREDICTIONS
    assert (whole.code, whole.out) == (0, f"{path}\n")
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["picture"] for row in rows] == [f"row {number + 2}" for number in range(42)]
    assert [row["label"] for row in rows] == [EMOTIONS[number % 7] for number in range(42)]
    right = sum(max(EMOTIONS, key=lambda emotion: float(row[f"p_{emotion}"])) == row["label"] for row in rows)
    assert f"all 2 folds: out-of-fold accuracy {right / 42:.2%}, NLL " in whole.err
    assert {row["fold"] for row in rows} == {"1", "2"}
    assert all(sum(float(row[f"p_{emotion}"]) for emotion in EMOTIONS) == pytest.approx(1, abs=1e-5) for row in rows)

    reported, progress = [], run_module.progress_line

    def interrupt(recipe: Recipe, done: Epoch) -> str:
        reported.append(done)
        if len(reported) == 3:
            raise KeyboardInterrupt
        return progress(recipe, done)

    monkeypatch.setattr(run_module, "progress_line", interrupt)
    again = ("cross", recipe_file, "--data", data, "--folds", 2, "--out", tmp_path / "cut", "--device", "cpu")
    cut = run(*again)
    assert cut.code == 130
    assert "fold 1 of 2: out-of-fold accuracy" in cut.err
    assert not (tmp_path / "cut" / PREDICTIONS).exists()
    assert run(*again).code == 0
    assert [done.epoch for done in reported] == [0, 1, 0, 1]
    assert (tmp_path / "cut" / PREDICTIONS).read_bytes() == path.read_bytes()


def test_mistakes_are_one_line_and_exit_2(run: Callable[..., Done], recipe_file: Path, data: Path, tmp_path: Path) -> None:
    guided = tmp_path / "pupil.toml"
    guided.write_text(to_toml(dataclasses.replace(RECIPE, teacher_share=0.5)))
    for arguments, message in (
        (("fit", recipe_file, "--teacher", guided), "small.toml: its teacher_share is 0: nothing is learnt from"),
        (("fit", guided), "pupil.toml: its teacher_share is 0.5; name networks to learn from with --teacher, or set it to 0"),
        (("fit", guided, "--teacher", tmp_path / "none"), f"{tmp_path / 'none'}: "),
        (("cross", guided), "pupil.toml: teacher_share is 0.5, and cross has no teachers; set it to 0"),
        (("cross", recipe_file, "--folds", 7), "6 different pictures of angry do not fill 7 folds; lower --folds"),
    ):
        done = run(*arguments, "--data", data, "--out", tmp_path / "out")
        assert (done.code, done.out) == (2, "")
        assert message in done.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
