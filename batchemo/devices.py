"""Chooses the device of the networks (CPU or CUDA), and assigns GPUs to worker processes."""

from __future__ import annotations

import contextlib
import functools
import getpass
import itertools
import os
import re
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from batchemo.errors import DeviceError


def cpu_has(*features: str, unless_limited_to: Collection[str]) -> bool:
    """Whether the processor has one of `features` (names of `torch.cpu.get_capabilities`), and oneDNN may use it.

    ONEDNN_MAX_CPU_ISA (formerly DNNL_MAX_CPU_ISA) limits what oneDNN uses; `unless_limited_to` are the limits that exclude the features.
    Versions of torch that cannot name the features have none.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "")).upper()
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return limit not in unless_limited_to and any(found.get(feature) for feature in features)


def choose_device(name: str) -> torch.device:
    """torch's device for `auto`, `cpu`, `cuda` or `cuda:N`. Raises DeviceError if this machine lacks it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise DeviceError(f"unknown device {name!r}; choose --device auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda":
        count = count_gpus()
        if (device.index or 0) >= count:
            raise DeviceError(
                f"--device {name}: this machine has {count} usable CUDA devices; use --device cpu, or check with: batchemo doctor"
            )
    return device


def upload(arrays: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Arrays of one shape as one tensor on `device`, B x that shape. For a GPU by pinned memory, so that the transfer is asynchronous."""
    batch = torch.empty((len(arrays), *arrays[0].shape), dtype=torch.uint8, pin_memory=device.type == "cuda")
    np.stack(arrays, out=batch.numpy())
    return batch.to(device, non_blocking=True)


def count_gpus() -> int:
    """Number of usable CUDA devices."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def claim_gpu() -> None:
    """Sets the default CUDA device of this thread to the least used one of this machine; nothing without GPUs."""
    count = count_gpus()
    if count:
        torch.cuda.set_device(_claimed_index(count))


@functools.cache
def _claimed_index(count: int) -> int:
    """The index of the GPU that this process holds a lock of."""
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    return _lock_device(count, folder=Path(tempfile.gettempdir()) / f"batchemo-gpus-{user}")


def _lock_device(count: int, *, folder: Path) -> int:
    """Index of the first of `count` devices with a free lock in `folder`.

    Each device has a second lock, a third and so on, so that more workers than devices share them evenly. The operating system releases
    a lock when its process ends, however it ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A scheduler may show this process only some of the machine's devices.
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if len(names) != count:
        names = [str(index) for index in range(count)]
    for turn in itertools.count():
        for index, name in enumerate(names):
            lock = FileLock(folder / f"device{name.strip().replace(os.sep, '_')}-{turn}.lock")
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                _locks.append(lock)
                return index
    raise AssertionError("itertools.count never ends")


_locks: list[FileLock] = []
"""Held until the process ends: a lock that is garbage-collected is released."""
