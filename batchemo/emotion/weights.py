"""Reads and writes weights files: safetensors with a checked SHA-256, and all that inference needs in the file's metadata."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from batchemo.errors import WeightsError

if TYPE_CHECKING:
    from batchemo.emotion.int8 import CalibrationRanges
    from batchemo.emotion.model import ExpressionNet

SHIPPED = Path(__file__).parent / "weights" / "fer2013.safetensors"
"""The weights in the package."""

_FORMAT = "batchemo-expression-net-1"


@dataclasses.dataclass(frozen=True, slots=True)
class WeightsFile:
    """Metadata of a weights file with a valid hash; its tensors are not read.

    - `temperature`: divides the logits before the softmax, so that probabilities are calibrated (Guo et al. 2017).
    - `figures`: evaluation results, and their data.
    - `sha256`: of the file; `network_json`: the `NetworkSpec`.
    - `ranges`: calibration ranges for int8; None if not measured.
    """

    path: Path
    labels: tuple[str, ...]
    temperature: float
    sha256: str
    figures: dict[str, Any]
    network_json: str
    ranges: CalibrationRanges | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Weights:
    """A network in memory, in evaluation mode; the other fields as in `WeightsFile`."""

    network: ExpressionNet
    labels: tuple[str, ...]
    temperature: float
    sha256: str
    figures: dict[str, Any]
    ranges: CalibrationRanges | None = None


def read_weights_file(path: Path = SHIPPED) -> WeightsFile:
    """Checks `path` without loading torch, against the hash in `<path>.sha256` if that file exists.

    Raises WeightsError if the file is missing, damaged, or not written by `save_weights`.
    """
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the weights ({error.strerror}); choose others with --weights FILE") from error
    expected = expected_sha256(path)
    if expected is None and path == SHIPPED:
        raise WeightsError(f"{sha256_path(path)} is missing, so the weights cannot be verified; reinstall batchemo")
    if expected not in (None, digest):
        raise WeightsError(
            f"{path}: damaged: its SHA-256 is {digest[:16]}..., {sha256_path(path).name} says {str(expected)[:16]}...; copy it again"
        )
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != _FORMAT:
            raise WeightsError(f"{path}: not weights of batchemo; train some: python -m training fit --help")
        labels = tuple(str(label) for label in json.loads(metadata["labels"]))
        figures = json.loads(metadata["figures"])
        ranges = {name: (float(least), float(most)) for name, (least, most) in json.loads(metadata.get("ranges", "{}")).items()} or None
        return WeightsFile(path, labels, float(metadata["temperature"]), digest, figures, metadata["network"], ranges)
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path}: damaged, or not a weights file ({error}); choose others with --weights FILE") from error


def load_weights(path: Path = SHIPPED) -> Weights:
    """Loads `path` into a network on the CPU. Raises WeightsError as `read_weights_file` does, and for an unknown network."""
    from safetensors.torch import load_file

    from batchemo.emotion.int8 import quantization_points
    from batchemo.emotion.model import ExpressionNet, NetworkSpec

    file = read_weights_file(path)
    try:
        spec = NetworkSpec.from_json(file.network_json)
    except (ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path}: unknown network ({error}); update batchemo, or choose others with --weights FILE") from error
    try:
        network = ExpressionNet(spec)
        network.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in load_file(path).items()})
    except (SafetensorError, RuntimeError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: damaged weights ({error}); choose others with --weights FILE") from error
    if len(file.labels) != network.spec.classes:
        raise WeightsError(f"{path}: {len(file.labels)} labels for {network.spec.classes} classes")
    if file.ranges is not None and set(file.ranges) != set(quantization_points(network)):
        raise WeightsError(f"{path}: damaged weights (the calibration ranges are of another network); choose others with --weights FILE")
    return Weights(network.eval(), file.labels, file.temperature, file.sha256, file.figures, file.ranges)


def save_weights(
    path: Path,
    network: ExpressionNet,
    *,
    labels: tuple[str, ...],
    temperature: float,
    figures: dict[str, Any],
    ranges: CalibrationRanges | None = None,
) -> str:
    """Writes `path`, with tensors in float16, and `<path>.sha256` (for `sha256sum -c`). Returns the hash."""
    from safetensors.torch import save

    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous() for name, tensor in network.state_dict().items()
    }
    metadata = {
        "format": _FORMAT,
        "network": network.spec.to_json(),
        "labels": json.dumps(labels),
        "temperature": repr(temperature),
        "figures": json.dumps(figures),
        **({} if ranges is None else {"ranges": json.dumps(ranges)}),
    }
    content = save(tensors, metadata)
    digest = hashlib.sha256(content).hexdigest()
    path.write_bytes(content)
    sha256_path(path).write_text(f"{digest}  {path.name}\n")
    return digest


def half_precision(network: ExpressionNet) -> ExpressionNet:
    """The network as `load_weights` would return it: float32, each value rounded to float16."""
    copy = type(network)(network.spec)
    copy.load_state_dict({name: t.half().float() if t.is_floating_point() else t for name, t in network.state_dict().items()})
    return copy.eval()


def sha256_path(path: Path) -> Path:
    """The file with the expected hash of `path`."""
    return path.with_name(path.name + ".sha256")


def expected_sha256(path: Path) -> str | None:
    """The hash in that file; None without one."""
    try:
        return sha256_path(path).read_text().split()[0]
    except (OSError, IndexError):
        return None
