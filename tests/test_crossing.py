"""Out-of-fold readings: nobody reads what they have learnt, and what was read is learnt from as the recipe says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from batchemo.emotion.model import ExpressionNet
from batchemo.emotion.weights import load_weights
from batchemo.errors import DataError
from tests.patterns import CPU, QUICK, Done, write_csv
from training import runs
from training.dataset import VOTES, FaceSet
from training.duplicates import group_alike
from training.fitting import Epoch, fit, predict
from training.folds import cross_fit, deal
from training.recipe import Recipe, to_toml
from training.unseen import UNSEEN, Unseen, hash_pictures, read_unseen, write_unseen

RECIPE = dataclasses.replace(QUICK, batch_size=8)
LEARNING = dataclasses.replace(RECIPE, unseen_share=0.5)

pytestmark = pytest.mark.usefixtures("one_thread")


def pictures(count: int, seed: int = 0) -> Tensor:
    """Blocks of random greys, no two alike."""
    blocks = torch.randint(20, 236, (count, 1, 8, 8), generator=torch.Generator().manual_seed(seed)).float()
    return functional.interpolate(blocks, scale_factor=6).to(torch.uint8)


def labelled(pixels: Tensor) -> FaceSet:
    return FaceSet(pixels, torch.arange(len(pixels)) % 7)


def one_hot(labels: Tensor) -> Tensor:
    return functional.one_hot(labels, 7).float()


def as_bytes(faces: FaceSet) -> set[bytes]:
    return {picture.numpy().tobytes() for picture in faces.pixels}


def some(path: Path, faces: FaceSet) -> Unseen:
    probabilities = torch.rand(len(faces), 7, generator=torch.Generator().manual_seed(5)).softmax(dim=1)
    return Unseen(path, probabilities, hash_pictures(faces.pixels), dataclasses.asdict(RECIPE), 3)


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
    (tmp_path / "teacher.toml").write_text(to_toml(dataclasses.replace(RECIPE, epochs=2)))
    return tmp_path / "teacher.toml"


@pytest.fixture
def learning_file(tmp_path: Path) -> Path:
    (tmp_path / "student.toml").write_text(to_toml(LEARNING))
    return tmp_path / "student.toml"


# Folds


def test_folds_have_every_picture_once_and_equal_shares_of_each_label() -> None:
    faces = labelled(pictures(126))
    dealt = deal(faces, folds=3, seed=4)
    assert torch.bincount(dealt).tolist() == [42, 42, 42]
    for number in range(3):
        assert torch.bincount(faces.labels[dealt == number]).tolist() == [6] * 7
    assert torch.equal(dealt, deal(faces, folds=3, seed=4))
    assert not torch.equal(dealt, deal(faces, folds=3, seed=5))


def test_copies_are_in_the_fold_of_their_original() -> None:
    pixels = pictures(70)
    brighter = (pixels[:8].float() * 0.8 + 30).round().to(torch.uint8)
    cut_anew = functional.interpolate(pixels[8:16, :, 1:, :-1].float(), size=(48, 48), mode="bilinear").round().to(torch.uint8)
    blank = torch.full((2, 1, 48, 48), 7, dtype=torch.uint8)
    parts = (pixels, pixels[20:30], pixels[20:24], brighter, cut_anew, blank)
    faces = labelled(torch.cat(parts))  # copies have other labels than their originals
    for seed in range(3):
        original, same, again, bright, cut, empty = deal(faces, folds=3, seed=seed).split([len(part) for part in parts])
        assert torch.equal(same, original[20:30])
        assert torch.equal(again, original[20:24])
        assert torch.equal(bright, original[:8])
        assert torch.equal(cut, original[8:16])
        assert len(set(empty.tolist())) == 1
    assert len(group_alike(pixels).unique()) == len(pixels)


def test_too_few_pictures_of_a_label_for_the_folds_are_refused() -> None:
    pixels = pictures(28)
    pixels[7::7] = pixels[0]
    with pytest.raises(DataError, match="1 different pictures of angry do not fill 3 folds; lower --folds"):
        deal(labelled(pixels), folds=3, seed=0)


# Who reads what


@pytest.mark.parametrize("folds", [2, 3])
def test_no_network_reads_a_picture_that_it_was_trained_on(
    folds: int, faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=2, sizes=(24, 32), size_shares=(0.5, 0.5))
    taught: list[tuple[FaceSet, ExpressionNet]] = []

    def recording(recipe: Recipe, faces: FaceSet, **rest: object) -> ExpressionNet:
        network = fit(recipe, faces, **rest)  # type: ignore[arg-type]
        taught.append((faces, network))
        return network

    monkeypatch.setattr(runs, "fit", recording)
    repeated = labelled(torch.cat([faces.pixels, faces.pixels[3:12]]))
    unseen = cross_fit(recipe, repeated, folds=folds, folder=tmp_path, device=CPU)
    assert len(taught) == folds
    readers = torch.zeros(len(repeated), dtype=torch.int64)
    for known, network in taught:
        new = torch.tensor([picture.numpy().tobytes() not in as_bytes(known) for picture in repeated.pixels])
        small = functional.interpolate(repeated.pixels[new].float() / 255, size=(32, 32), mode="bilinear", antialias=True)
        logits = (predict(network, small, CPU) + predict(network, small.flip(3), CPU)) / 2
        assert torch.allclose(unseen.probabilities[new], logits.softmax(dim=1), atol=1e-5)
        readers += new
        assert len(known) + int(new.sum()) == len(repeated)
    assert readers.tolist() == [1] * len(repeated)
    assert torch.allclose(unseen.probabilities[3:12], unseen.probabilities[42:], atol=1e-5)


def test_crossing_that_was_cut_off_ends_with_the_same_file(
    run: Callable[..., Done], recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run("cross", recipe_file, "--data", data, "--out", tmp_path / "whole", "--device", "cpu")
    assert (whole.code, whole.out) == (0, f"{tmp_path / 'whole' / UNSEEN}\n")
    told, progress = [], runs.progress

    def interrupt(recipe: Recipe, done: Epoch) -> str:
        told.append(done)
        if len(told) == 3:
            raise KeyboardInterrupt
        return progress(recipe, done)

    monkeypatch.setattr(runs, "progress", interrupt)
    again = ("cross", recipe_file, "--data", data, "--out", tmp_path / "cut", "--device", "cpu")
    cut = run(*again)
    assert cut.code == 130
    assert "fold 1 of 3: accuracy" in cut.err
    assert "goes on after the last whole epoch" in cut.err
    assert not (tmp_path / "cut" / UNSEEN).exists()
    assert run(*again).code == 0
    assert [done.epoch for done in told] == [0, 1, 0, 1, 0, 1]
    assert (tmp_path / "cut" / UNSEEN).read_bytes() == (tmp_path / "whole" / UNSEEN).read_bytes()


# The file


def test_readings_are_read_back_as_they_were_written(faces: FaceSet, tmp_path: Path) -> None:
    written = some(tmp_path / "x" / UNSEEN, faces)
    write_unseen(written)
    content = written.path.read_bytes()
    read = read_unseen(written.path)
    assert torch.equal(read.probabilities, written.probabilities)
    assert torch.equal(read.pictures, written.pictures)
    assert (read.recipe["batch_size"], read.folds, repr(read)) == (8, 3, "Unseen(42 pictures, 3 folds)")
    write_unseen(read)
    assert written.path.read_bytes() == content


def test_readings_find_their_pictures_in_any_order(faces: FaceSet, tmp_path: Path) -> None:
    unseen = some(tmp_path / UNSEEN, faces)
    chosen = torch.tensor([5, 3, 3, 40, 0])
    assert torch.equal(unseen.of(faces.subset(chosen)), unseen.probabilities[chosen])
    other = FaceSet(torch.cat([faces.pixels, pictures(3, seed=9)]), torch.zeros(45, dtype=torch.int64))
    with pytest.raises(DataError, match=r"unseen\.safetensors: no readings of 3 of the 45 training pictures \(number 42 the first\); give"):
        unseen.of(other)


def change(path: Path, name: str, tensor: Tensor | None = None, **about: object) -> None:
    """Another tensor or another word about them in the file at `path`."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["about"]) | about
    tensors = load_file(path)
    if tensor is not None:
        tensors[name] = tensor
    save_file(tensors, path, {"about": json.dumps(metadata)})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "cannot read the out-of-fold readings"),
        (lambda path: path.write_bytes(path.read_bytes()[:900]), "damaged readings, or none at all"),
        (lambda path: path.write_bytes(b"no tensors"), "damaged readings, or none at all"),
        (lambda path: save_file({"probabilities": torch.zeros(3, 7)}, path), "no out-of-fold readings"),
        (lambda path: change(path, "", labels=["a", "b"]), "tells apart a, b, where FER2013 has angry"),
        (lambda path: change(path, "", recipe=3), "damaged readings, or none at all"),
        (lambda path: change(path, "probabilities", torch.full((42, 8), 0.125)), "probabilities must be float32 N x 7, not float32 42 x 8"),
        (lambda path: change(path, "probabilities", torch.full((42, 7), 1 / 7).half()), "must be float32 N x 7, not float16 42 x 7"),
        (lambda path: change(path, "probabilities", torch.full((42, 7), 0.2)), "must be 0 or more and sum to 1"),
        (lambda path: change(path, "probabilities", torch.full((42, 7), np.nan)), "must be 0 or more and sum to 1"),
        (lambda path: change(path, "pictures", torch.zeros(41, 32, dtype=torch.uint8)), "hashes must be uint8 42 x 32, not uint8 41 x 32"),
    ],
)
def test_files_that_are_no_readings_say_what_to_type(
    damage: Callable[[Path], object], message: str, faces: FaceSet, tmp_path: Path
) -> None:
    path = tmp_path / UNSEEN
    write_unseen(some(path, faces))
    damage(path)
    with pytest.raises(DataError, match=rf"unseen\.safetensors.*{message}.*python -m training cross"):
        read_unseen(path)


# Learning from readings


def weights(recipe: Recipe, faces: FaceSet, folder: Path, unseen: Tensor | None = None) -> list[Tensor]:
    network = fit(recipe, faces, validation=None, folder=folder, device=CPU, report=lambda _: None, unseen=unseen)
    return list(network.state_dict().values())


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(first, second) for first, second in zip(one, other, strict=True))


def test_targets_are_mixed_by_the_share_of_the_recipe(faces: FaceSet, tmp_path: Path) -> None:
    others = (faces.labels + 3) % 7
    relabelled = dataclasses.replace(faces, labels=others)

    def share(value: float) -> Recipe:
        return dataclasses.replace(RECIPE, unseen_share=value)

    quarter = weights(share(0.25), faces, tmp_path / "1", one_hot(others))
    assert same(quarter, weights(share(0.75), relabelled, tmp_path / "2", one_hot(faces.labels)))
    plain = weights(RECIPE, faces, tmp_path / "3")
    assert not same(quarter, plain)
    assert same(plain, weights(share(0.0), faces, tmp_path / "4", one_hot(others)))
    assert same(plain, weights(share(1.0), relabelled, tmp_path / "5", one_hot(faces.labels)))


def test_the_rest_of_the_target_is_labels_and_votes_as_before(faces: FaceSet, tmp_path: Path) -> None:
    votes = torch.randint(0, 10, (len(faces), len(VOTES)), generator=torch.Generator().manual_seed(0))
    voted = dataclasses.replace(faces, votes=votes)
    others = one_hot((faces.labels + 3) % 7)

    def recipe(votes_share: float, unseen_share: float) -> Recipe:
        return dataclasses.replace(RECIPE, votes_share=votes_share, unseen_share=unseen_share)

    mixed = weights(recipe(0.5, 0.5), voted, tmp_path / "1", others)
    assert not same(mixed, weights(recipe(0.0, 0.5), voted, tmp_path / "2", others))
    assert not same(mixed, weights(recipe(0.5, 0.0), voted, tmp_path / "3"))
    assert same(weights(recipe(0.5, 1.0), voted, tmp_path / "4", others), weights(recipe(0.0, 1.0), voted, tmp_path / "5", others))


def test_readings_that_do_not_fit_are_refused_before_anything_is_written(faces: FaceSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="that python -m training cross writes with --unseen, or set unseen_share to 0"):
        weights(LEARNING, faces, tmp_path / "none")
    with pytest.raises(DataError, match=r"must be \(42, 7\), not \(41, 7\)"):
        weights(LEARNING, faces, tmp_path / "none", one_hot(faces.labels[1:]))
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="unseen_share and teacher_share must be 0 to 1"):
        dataclasses.replace(RECIPE, unseen_share=1.5)


def test_a_checkpoint_of_other_readings_is_refused(faces: FaceSet, tmp_path: Path) -> None:
    weights(LEARNING, faces, tmp_path, one_hot(faces.labels))
    with pytest.raises(DataError, match="belongs to other pictures or targets; give those with --data, --votes and --unseen"):
        weights(LEARNING, faces, tmp_path, one_hot(6 - faces.labels))


# Command line


def test_from_readings_to_weights(run: Callable[..., Done], recipe_file: Path, learning_file: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "cross"
    crossing = ("cross", recipe_file, "--data", data, "--out", out, "--folds", 2, "--device", "cpu")
    code, printed, messages = run(*crossing)
    assert (code, printed) == (0, f"{out / UNSEEN}\n")
    assert sum(line.startswith(("fold 1 of 2: accuracy ", "fold 2 of 2: accuracy ")) for line in messages.splitlines()) == 2
    assert messages.count(" on 21 pictures, each read by a network that has not seen it") == 2
    assert "all 2 folds: accuracy" in messages
    assert f"next: python -m training fit RECIPE.toml --unseen {out / UNSEEN} --data {data}" in messages

    code, printed, messages = run("fit", learning_file, "--unseen", out / UNSEEN, "--data", data, "--out", tmp_path / "student")
    assert code == 0, messages
    figures = load_weights(Path(printed.strip())).figures
    assert (figures["recipe"], figures["unseen_share"], figures["trained_on"]) == ("student", 0.5, 42)

    before = (out / UNSEEN).read_bytes()
    again = run(*crossing)
    assert (again.code, "epoch " in again.err, "all 2 folds: accuracy" in again.err) == (0, False, True)
    other = write_csv(tmp_path / "other.csv", [])
    other.write_text("\n".join(line for number, line in enumerate(data.read_text().splitlines()) if number not in range(1, 8)))
    for changes, message in (
        (("--folds", 3), "holds readings in another number of folds; give another folder with --out, or remove"),
        (("--epochs", 1), "holds readings by another recipe"),
        (("--data", other), "holds readings of other pictures"),
    ):
        refused = run(*crossing, *changes)
        assert refused.code == 2
        assert message in refused.err
    assert (out / UNSEEN).read_bytes() == before


def test_mistakes_are_one_line_and_exit_2(
    run: Callable[..., Done], recipe_file: Path, learning_file: Path, data: Path, tmp_path: Path
) -> None:
    path = tmp_path / UNSEEN
    write_unseen(some(path, labelled(pictures(42, seed=3))))
    guided_file = tmp_path / "pupil.toml"
    guided_file.write_text(to_toml(dataclasses.replace(RECIPE, teacher_share=0.5)))
    for arguments, message in (
        (("fit", recipe_file, "--unseen", path), "teacher.toml: its unseen_share is 0: nothing is learnt from"),
        (("fit", recipe_file, "--teacher", path), "teacher.toml: its teacher_share is 0: nothing is learnt from"),
        (("fit", guided_file), "pupil.toml: its teacher_share is 0.5; name networks to learn from with --teacher, or set it to 0"),
        (("fit", guided_file, "--teacher", tmp_path / "none"), f"{tmp_path / 'none'}: "),
        (("cross", guided_file), "pupil.toml: teacher_share is 0.5, and cross has no teachers; set it to 0"),
        (("fit", learning_file), "python -m training cross writes with --unseen, or set unseen_share to 0"),
        (("fit", learning_file, "--unseen", tmp_path / "none"), "none: cannot read the out-of-fold readings"),
        (("fit", learning_file, "--unseen", path), "no readings of 42 of the 42 training pictures (row 2 the first)"),
        (("cross", learning_file), "student.toml: unseen_share is 0.5, but there are no readings yet; set it to 0 for cross"),
        (("cross", recipe_file, "--folds", 7), "6 different pictures of angry do not fill 7 folds; lower --folds"),
    ):
        done = run(*arguments, "--data", data, "--out", tmp_path / "out")
        assert (done.code, done.out) == (2, "")
        assert message in done.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
