"""Checks whether this machine has all that a run needs, and says how to get what is missing."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

from batchemo import __version__
from batchemo.errors import BatchemoError

_AGAIN = "install batchemo again: pip install --force-reinstall batchemo"
_EXTRA = 'get it with: pip install "batchemo[{}]"'
_PICTURE_READERS = ("opencv-python-headless", "pi-heif", "pillow", "simplejpeg")
_WITHOUT_DECORD = "PyAV reads short clips as well, but more slowly; where there are wheels (x86-64 Linux): pip install decord"


@dataclasses.dataclass(frozen=True, slots=True)
class DoctorCheck:
    """One checked part. Where `ok` is false, `detail` says what to do. A run works without parts that are not `needed`."""

    part: str
    ok: bool
    detail: str
    needed: bool = True


def examine() -> list[DoctorCheck]:
    """All checks, the most basic first."""
    return list(_examine())


def _examine() -> Iterator[DoctorCheck]:
    yield DoctorCheck("batchemo", True, f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    yield _check("weights", _weights)
    yield _check("torch", _torch)
    yield _check("GPU", _gpu, needed=False)
    yield _check("precision", _precision)
    yield _check("face detector", _detector)
    yield _check("pictures", lambda: ", ".join(f"{name} {metadata.version(name)}" for name in _PICTURE_READERS))
    yield _check("videos", _pyav)
    yield _check("short clips", lambda: f"decord {metadata.version('decord')}", needed=False, hint=_WITHOUT_DECORD)
    yield _check("annotated videos", _encoder)
    yield _check("video hardware", _hardware, needed=False)
    yield _check("tables", lambda: f"pyarrow {metadata.version('pyarrow')}, pandas {metadata.version('pandas')}")
    yield _check("plots", lambda: f"matplotlib {metadata.version('matplotlib')}", needed=False, hint=_EXTRA.format("plot"))
    yield _check("export to ELAN", lambda: f"pympi-ling {metadata.version('pympi-ling')}", needed=False, hint=_EXTRA.format("eaf"))


def _check(part: str, find: Callable[[], str], *, needed: bool = True, hint: str = _AGAIN) -> DoctorCheck:
    try:
        return DoctorCheck(part, True, find(), needed)
    except BatchemoError as error:
        return DoctorCheck(part, False, str(error), needed)
    except metadata.PackageNotFoundError as error:
        return DoctorCheck(part, False, f"{error.name} is not installed; {hint}", needed)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        return DoctorCheck(part, False, f"{error}; {hint}", needed)


def _weights() -> str:
    from batchemo.emotion.weights import read_weights_file

    weights = read_weights_file()
    facts = [weights.path.name, f"SHA-256 {weights.sha256}", *_figures(weights.figures), f"labels {', '.join(weights.labels)}"]
    card = weights.path.with_name("MODEL_CARD.md")
    return "; ".join([*facts, f"model card {card}"] if card.exists() else facts)


def _figures(figures: dict[str, Any]) -> Iterator[str]:
    """Figures that the weights file holds."""
    if {"accuracy", "split", "n"} <= figures.keys():
        unseen = f" (about {figures['accuracy_clean']:.0%} of those unseen in training)" if "accuracy_clean" in figures else ""
        yield f"accuracy {figures['accuracy']:.1%}{unseen} of the {figures['n']:,} pictures of {figures['split']}"
    for key, title in (("macro_f1", "macro-F1"), ("ece_cross_fitted", "calibration error")):
        if key in figures:
            yield f"{title} {figures[key]:.3f}"
    if {"parameters", "multiply_adds"} <= figures.keys():
        yield f"{figures['parameters'] / 1e6:.2f} M parameters, {figures['multiply_adds'] / 1e6:.0f} M multiply-adds a face"


def _torch() -> str:
    import torch

    return f"{torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        raise BatchemoError(
            "none that torch can use, so runs use the CPU; an NVIDIA GPU needs its driver and a torch for it, see pytorch.org/get-started"
        )
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def _precision() -> str:
    from batchemo.devices import choose_device
    from batchemo.emotion.classifier import choose_precision
    from batchemo.emotion.weights import read_weights_file

    device = choose_device("auto")
    place = "this CPU" if device.type == "cpu" else "the GPU"
    return f"emotions are classified in {choose_precision(read_weights_file(), device)} on {place}"


def _detector() -> str:
    import torch

    from batchemo.faces.detector import MtcnnDetector

    MtcnnDetector(device=torch.device("cpu"))
    return f"MTCNN of facenet-pytorch {metadata.version('facenet-pytorch')}, its weights inside"


def _pyav() -> str:
    import av

    missing = [name for name in ("h264", "hevc", "vp9", "av1", "mpeg4") if name not in av.codecs_available]
    if missing:
        raise BatchemoError(
            f"PyAV {av.__version__} cannot decode {', '.join(missing)}; install its wheel: pip install --force-reinstall av"
        )
    return f"PyAV {av.__version__} with H.264, HEVC, VP9, AV1 and MPEG-4"


def _encoder() -> str:
    import av

    av.CodecContext.create("libx264", "w")
    return "H.264 by libx264"


def _hardware() -> str:
    from batchemo.render.encoders import CODEC_NAMES, find_hardware

    found = [f"{CODEC_NAMES[codec]} by {encoder.name}" for codec in CODEC_NAMES if (encoder := find_hardware(codec)) is not None]
    if not found:
        raise BatchemoError("none that works (NVENC, Quick Sync, AMF, VideoToolbox), so videos are encoded in software")
    return ", ".join(found)
