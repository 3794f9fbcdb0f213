"""Weights files: safetensors only, their hash checked, with all that is needed to use them in the file's own metadata."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from batchemo.errors import WeightsError
from batchemo.network import ExpressionNet, NetworkSpec

SHIPPED = Path(__file__).parent / "weights" / "fer2013.safetensors"
"""The weights inside the package."""

_FORMAT = "batchemo-expression-net-1"


@dataclasses.dataclass(frozen=True, slots=True)
class Weights:
    """A network with its labels.

    `temperature` divides the logits before the softmax, so that probabilities are calibrated (Guo et al. 2017).
    `figures` says how well it did, on what. `sha256` is that of the file.
    """

    network: ExpressionNet
    labels: tuple[str, ...]
    temperature: float
    sha256: str
    figures: dict[str, Any]


def load_weights(path: Path = SHIPPED) -> Weights:
    """Reads `path`; where `<path>.sha256` stands beside it, the hash must be the one it gives.

    Raises WeightsError where the file is missing, damaged, or not written by `save_weights`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the weights ({error.strerror}); give others with --weights FILE") from error
    digest = hashlib.sha256(content).hexdigest()
    expected = expected_sha256(path)
    if expected is not None and expected != digest:
        raise WeightsError(
            f"{path}: damaged: its SHA-256 is {digest[:16]}..., but {sidecar(path).name} says {expected[:16]}...; install batchemo again"
        )
    if path == SHIPPED and expected is None:
        raise WeightsError(f"{sidecar(path)} is missing, so the weights cannot be checked; install batchemo again")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if metadata.get("format") != _FORMAT:
            raise WeightsError(f"{path}: not weights of batchemo; make some with: python -m training fit --help")
        network = ExpressionNet(NetworkSpec.from_json(metadata["network"]))
        network.load_state_dict({name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()})
        labels = tuple(json.loads(metadata["labels"]))
        temperature = float(metadata["temperature"])
        figures = json.loads(metadata["figures"])
    except (SafetensorError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: damaged weights ({error}); give others with --weights FILE") from error
    if len(labels) != network.spec.classes:
        raise WeightsError(f"{path}: {len(labels)} labels for {network.spec.classes} classes")
    return Weights(network.eval(), labels, temperature, digest, figures)


def save_weights(path: Path, network: ExpressionNet, *, labels: tuple[str, ...], temperature: float, figures: dict[str, Any]) -> str:
    """Writes `path`, tensors in half precision, and `<path>.sha256` beside it (as `sha256sum -c` reads it); returns the hash."""
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous() for name, tensor in network.state_dict().items()
    }
    metadata = {
        "format": _FORMAT,
        "network": network.spec.to_json(),
        "labels": json.dumps(labels),
        "temperature": repr(temperature),
        "figures": json.dumps(figures),
    }
    content = save(tensors, metadata)
    digest = hashlib.sha256(content).hexdigest()
    path.write_bytes(content)
    sidecar(path).write_text(f"{digest}  {path.name}\n")
    return digest


def half_precision(network: ExpressionNet) -> ExpressionNet:
    """The network as it will be read back from a file: float32, each value rounded to half precision."""
    copy = ExpressionNet(network.spec)
    copy.load_state_dict({name: t.half().float() if t.is_floating_point() else t for name, t in network.state_dict().items()})
    return copy.eval()


def sidecar(path: Path) -> Path:
    """Where the expected hash of `path` stands."""
    return path.with_name(path.name + ".sha256")


def expected_sha256(path: Path) -> str | None:
    """The hash that the file beside `path` gives, if there is one."""
    try:
        return sidecar(path).read_text().split()[0]
    except (OSError, IndexError):
        return None
