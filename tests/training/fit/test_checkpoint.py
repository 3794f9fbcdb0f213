"""Trainings go on from a checkpoint, also one that is older than some keys of a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from batchemo.emotion.model import ExpressionNet
from batchemo.errors import DataError
from tests.patterns import CPU, QUICK
from training.data.fer2013 import FaceSet, read_split
from training.data.synthetic import write_synthetic_csv
from training.fit import trainer
from training.fit.checkpoint import CHECKPOINT
from training.fit.targets import Teachers, make_samples
from training.fit.trainer import Epoch, fit_network
from training.recipe import Augmentation, Recipe, read_recipe

RECIPE = dataclasses.replace(QUICK, epochs=2, learning_rate=0.02, network=dataclasses.replace(QUICK.network, drop_path=0.0))


UNCHANGED: dict[str, Any] = dict.fromkeys(
    ("rotation_degrees", "scale", "shift", "brightness", "contrast", "gamma", "low_resolution", "mixup_alpha"), 0.0
)
ERASED = Augmentation(**UNCHANGED, erase=1.0, erase_area=(0.05, 0.1))
"""Pictures are flipped and partly erased, nothing else."""


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> FaceSet:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("data") / "fer2013.csv"
    write_synthetic_csv(path, training=8, test=0)
    return read_split(path, "Training")


def learn(recipe: Recipe, faces: FaceSet, folder: Path, *, stop_after: int = 99, teachers: Sequence[ExpressionNet] = ()) -> ExpressionNet:
    def report(done: Epoch) -> None:
        if done.epoch + 1 == stop_after:
            raise KeyboardInterrupt

    return fit_network(recipe, faces, validation=None, folder=folder, device=CPU, report=report, teachers=teachers)


def same(one: ExpressionNet, other: ExpressionNet) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_network_is_fitted_and_goes_on_after_a_stop(faces: FaceSet, tmp_path: Path) -> None:
    whole = learn(RECIPE, faces, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        learn(RECIPE, faces, tmp_path / "stopped", stop_after=1)
    assert same(learn(RECIPE, faces, tmp_path / "stopped"), whole)


def test_the_precision_of_the_arithmetic_is_the_recipes(faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = learn(dataclasses.replace(RECIPE, precision="bf16"), faces, tmp_path / "mixed")
    exact = learn(dataclasses.replace(RECIPE, precision="float32"), faces, tmp_path / "exact")
    assert not same(mixed, exact)
    assert torch.allclose(mixed.head.weight, exact.head.weight, atol=0.05)
    for native, expected in ((True, mixed), (False, exact)):
        monkeypatch.setattr("training.fit.trainer.has_bfloat16", lambda native=native: native)
        assert same(learn(RECIPE, faces, tmp_path / f"native {native}"), expected)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('precision = "bf61"')
    with pytest.raises(DataError, match="precision must be auto or bf16 or float32, not 'bf61'"):
        read_recipe(recipe)


def test_mirror_images_are_learnt_where_the_recipe_says_so(faces: FaceSet, tmp_path: Path) -> None:
    both = dataclasses.replace(RECIPE, mirror_weight=1.0)
    together = learn(both, faces, tmp_path / "together")
    assert not same(together, learn(RECIPE, faces, tmp_path / "alone"))
    assert not same(together, learn(dataclasses.replace(RECIPE, mirror_weight=1e-9), faces, tmp_path / "hardly"))
    with pytest.raises(KeyboardInterrupt):
        learn(both, faces, tmp_path / "stopped", stop_after=1)
    assert same(learn(both, faces, tmp_path / "stopped"), together)
    with pytest.raises(ValueError, match="mirror_weight must be 0 or more"):
        dataclasses.replace(RECIPE, mirror_weight=-1.0)


def test_mirror_images_may_be_changed_for_themselves(faces: FaceSet) -> None:
    samples = make_samples(RECIPE, faces)
    for apart in (False, True):
        recipe = dataclasses.replace(RECIPE, mirror_weight=1.0, mirror_apart=apart, augmentation=ERASED)
        for pictures, targets, _ in trainer._batches(recipe, samples, epoch=0):
            assert len(pictures) == 2 * recipe.batch_size
            one, other = pictures.chunk(2)
            assert torch.equal(*targets.chunk(2))
            assert [torch.equal(a, b.flip(2)) for a, b in zip(one, other, strict=True)] == [not apart] * recipe.batch_size
            # Where nothing but what is erased differs, most of the mirror image is the picture's.
            agreeing = [(a == b.flip(2)).float().mean() > 0.5 for a, b in zip(one, other, strict=True)]
            assert all(agreeing)
    for wrong in ({"mirror_weight": 0.0}, {"augmentation": dataclasses.replace(RECIPE.augmentation, mixup_alpha=0.2)}):
        with pytest.raises(ValueError, match="mirror_apart needs a mirror_weight above 0 and mixup_alpha = 0"):
            dataclasses.replace(recipe, **wrong)


def test_teachers_are_learnt_from_where_the_recipe_says_so(faces: FaceSet, tmp_path: Path) -> None:
    torch.manual_seed(0)
    one, other = ExpressionNet(RECIPE.network), ExpressionNet(RECIPE.network)
    guided = dataclasses.replace(RECIPE, teacher_share=0.5)
    taught = learn(guided, faces, tmp_path / "taught", teachers=[one, other])
    for teachers, folder in (([one], "one"), ([one, one], "twice")):
        assert not same(taught, learn(guided, faces, tmp_path / folder, teachers=teachers))
    with pytest.raises(KeyboardInterrupt):
        learn(guided, faces, tmp_path / "stopped", stop_after=1, teachers=[one, other])
    with pytest.raises(DataError, match="had other teachers; give those with --teacher"):
        learn(guided, faces, tmp_path / "stopped", teachers=[one])
    assert same(learn(guided, faces, tmp_path / "stopped", teachers=[one, other]), taught)
    with pytest.raises(DataError, match="give their weights to python -m training fit with --teacher, or set teacher_share to 0"):
        learn(guided, faces, tmp_path / "none")
    with pytest.raises(ValueError, match="teacher_share must be 0 to 1"):
        dataclasses.replace(RECIPE, teacher_share=1.5)


def test_teachers_say_the_mean_and_stay_as_they_are(faces: FaceSet) -> None:
    recipe = dataclasses.replace(RECIPE, mirror_weight=1.0, precision="float32")  # bfloat16, where processors have it, is less exact
    torch.manual_seed(0)
    networks = [ExpressionNet(RECIPE.network).train() for _ in range(2)]
    before = [tensor.clone() for network in networks for tensor in network.state_dict().values()]
    guides = Teachers(networks, CPU)
    pictures = faces.pixels[:6].float() / 255
    read = guides.predict(pictures)
    expected = torch.stack([network.eval()(pictures).softmax(1) for network in networks]).mean(0)
    torch.testing.assert_close(read, expected)
    assert not read.requires_grad
    assert all(map(torch.equal, guides.tensors(), before))
    mirrored = trainer._teacher_targets(guides, recipe, torch.cat((pictures, pictures.flip(3))), device=CPU)
    one, other = mirrored.chunk(2)
    assert torch.equal(one, other)
    torch.testing.assert_close(one, (read + guides.predict(pictures.flip(3))) / 2)


def test_predictions_are_as_far_apart_as_jeffreys_says() -> None:
    one, other = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    p, q = one.softmax(1), other.softmax(1)
    expected = sum(torch.nn.functional.kl_div(b.log(), a, reduction="batchmean") for a, b in ((p, q), (q, p))) / 2
    assert trainer._mirror_loss(torch.cat((one, other))) == pytest.approx(float(expected), rel=1e-5)
    assert trainer._mirror_loss(torch.cat((one, one + 3))) == pytest.approx(0, abs=1e-6)


def test_a_checkpoint_of_another_network_is_refused_and_kept(faces: FaceSet, tmp_path: Path) -> None:
    learn(RECIPE, faces, tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    other = dataclasses.replace(RECIPE, network=dataclasses.replace(RECIPE.network, stem=RECIPE.network.stem + 1))
    with pytest.raises(DataError, match=r"checkpoint\.pt belongs to another recipe; give another folder with --out"):
        learn(other, faces, tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_checkpoint_older_than_some_keys_of_the_recipe_goes_on(faces: FaceSet, tmp_path: Path) -> None:
    whole = learn(RECIPE, faces, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        learn(RECIPE, faces, tmp_path / "old", stop_after=1)
    path = tmp_path / "old" / CHECKPOINT
    state = torch.load(path, weights_only=True)
    for key in ("precision", "votes_share"):
        del state["recipe"][key]
    state["recipe"] |= {"optimizer": "sgd", "muon_rate": 0.02, "muon_decay": 0.1, "unseen_share": 0.0, "sharpness_radius": 0.0}
    state["recipe"]["network"] |= {"architecture": "resnet", "squeeze": 0}
    for key in ("mixup_alpha", "jpeg", "jpeg_quality"):
        del state["recipe"]["augmentation"][key]
    torch.save(state, path)
    with pytest.raises(DataError, match="another recipe"):  # a key that it lacks had the default, not anything
        learn(dataclasses.replace(RECIPE, precision="float32"), faces, tmp_path / "old")
    assert same(learn(RECIPE, faces, tmp_path / "old"), whole)
    vgg = {"network": state["recipe"]["network"] | {"architecture": "vgg"}}
    for gone in ({"optimizer": "muon"}, vgg):
        torch.save(state | {"recipe": state["recipe"] | gone}, path)
        with pytest.raises(DataError, match="another recipe"):  # what it was trained by is no longer there
            learn(RECIPE, faces, tmp_path / "old")
