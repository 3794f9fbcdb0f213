"""Averages of networks: weights in the middle, statistics that fit them, and a file like any other."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from batchemo.emotion.model import ExpressionNet, NetworkSpec
from batchemo.emotion.weights import load_weights, save_weights
from batchemo.errors import DataError
from batchemo.records import EMOTIONS
from tests.patterns import Done
from training.fit.averaging import augmented_batches, average_weights, refresh_norms
from training.recipe import Augmentation

CPU = torch.device("cpu")
SPEC = NetworkSpec(stem=8, widths=(8, 16), blocks=(1, 1))


def network(seed: int, spec: NetworkSpec = SPEC) -> ExpressionNet:
    torch.manual_seed(seed)
    return ExpressionNet(spec).eval()


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, 48, 48), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_weights_are_in_the_middle_and_the_parts_stay_as_they_are() -> None:
    parts = [network(seed) for seed in (1, 2, 4)]
    before = [part.head.weight.clone() for part in parts]
    mean = average_weights(parts)
    assert torch.allclose(mean.head.weight, torch.stack(before).mean(0), atol=1e-7)
    assert all(torch.equal(part.head.weight, weight) for part, weight in zip(parts, before, strict=True))
    assert torch.allclose(average_weights([parts[0], parts[0]])(pictures(3)), parts[0](pictures(3)), atol=1e-5)


def test_networks_of_different_shapes_and_single_ones_have_no_average() -> None:
    with pytest.raises(DataError, match=r"different shapes have no average: .*widths=\(8, 16\).*widths=\(16, 16\)"):
        average_weights([network(1), network(2, NetworkSpec(stem=8, widths=(16, 16), blocks=(1, 1)))])
    with pytest.raises(DataError, match="at least two"):
        average_weights([network(1)])
    regularised = dataclasses.replace(SPEC, dropout=0.5)  # shapes nothing
    average_weights([network(1), network(2, regularised)])


def test_refreshed_norms_have_the_statistics_of_the_pictures() -> None:
    changed = network(3)
    convolution, norm = changed.stem[0], changed.stem[1]
    assert isinstance(convolution, torch.nn.Conv2d)
    assert isinstance(norm, torch.nn.BatchNorm2d)
    weights = convolution.weight.clone()
    seen: list[torch.Tensor] = []
    handle = norm.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    refresh_norms(changed, pictures(64).split(32), CPU)
    handle.remove()
    entering = torch.cat(seen)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert torch.allclose(norm.running_mean, entering.mean(dim=(0, 2, 3)), atol=1e-4)
    assert torch.allclose(norm.running_var, torch.stack([part.var(dim=(0, 2, 3)) for part in seen]).mean(0), rtol=1e-4)
    assert torch.equal(convolution.weight, weights)
    assert not norm.training
    assert norm.momentum == torch.nn.BatchNorm2d(1).momentum


def test_pictures_for_the_norms_are_changed_and_repeat_by_their_seed() -> None:
    batches = list(augmented_batches(pictures(300), Augmentation(), seed=1))
    assert [len(batch) for batch in batches] == [256, 44]
    assert all(
        torch.equal(one, other) for one, other in zip(batches, augmented_batches(pictures(300), Augmentation(), seed=1), strict=True)
    )
    plain = {picture.numpy().tobytes() for picture in pictures(300).float() / 255}
    assert not any(picture.numpy().tobytes() in plain for batch in batches for picture in batch)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = ["emotion,pixels,Usage"]
    for number, picture in enumerate(pictures(56)):
        rows.append(f"{number % 7},{' '.join(map(str, picture.flatten().tolist()))},{'Training' if number < 28 else 'PublicTest'}")
    path = tmp_path / "fer2013.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("norms", ["--keep-norms", "--refresh-norms"])
def test_runs_are_averaged_into_a_weights_file(run: Callable[..., Done], data: Path, tmp_path: Path, norms: str) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    hashes = []
    for seed, folder in enumerate(folders):
        folder.mkdir()
        hashes.append(save_weights(folder / "weights.safetensors", network(seed), labels=EMOTIONS, temperature=1.0, figures={}))
    out = tmp_path / "average"
    code, printed, messages = run("average", folders[0], folders[1] / "weights.safetensors", "--data", data, "--out", out, norms)
    assert (code, printed) == (0, f"{out / 'weights.safetensors'}\n")
    assert messages.count("weights.safetensors: accuracy") == 2
    made = load_weights(out / "weights.safetensors")
    assert made.figures["average_of"] == hashes
    assert made.figures["norms"] == {"--keep-norms": "averaged", "--refresh-norms": "refreshed"}[norms]
    assert made.figures["n"] == 28
    code, printed, _ = run("evaluate", out / "weights.safetensors", "--data", data, "--json")
    assert json.loads(printed)["accuracy"] == pytest.approx(made.figures["accuracy"], abs=1e-5)


def test_an_average_does_not_replace_its_parts(run: Callable[..., Done], data: Path, tmp_path: Path) -> None:
    for seed, name in enumerate(("weights.safetensors", "other.safetensors")):
        save_weights(tmp_path / name, network(seed), labels=EMOTIONS, temperature=1.0, figures={})
    before = (tmp_path / "weights.safetensors").read_bytes()
    code, _, messages = run("average", tmp_path, tmp_path / "other.safetensors", "--data", data, "--out", tmp_path)
    assert code == 2
    assert "give another folder with --out" in messages
    assert (tmp_path / "weights.safetensors").read_bytes() == before
