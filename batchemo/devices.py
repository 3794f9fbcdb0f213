"""Where networks run: the CPU or a CUDA device."""

from __future__ import annotations

import contextlib
import functools
import getpass
import itertools
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from batchemo.errors import DeviceError


def choose_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` -> torch's device. Raises DeviceError where it does not exist here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise DeviceError(f"no device {name!r}; choose --device auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda":
        count = count_gpus()
        if (device.index or 0) >= count:
            raise DeviceError(
                f"--device {name}: this machine has {count} usable CUDA devices; try --device cpu, or look with: batchemo doctor"
            )
    return device


def upload(arrays: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Arrays of one shape as one tensor on `device`, B x that shape. On its way to a GPU it lies in memory that the system leaves in place
    (torch keeps that for the next one), so that nobody waits for the transfer."""
    batch = torch.empty((len(arrays), *arrays[0].shape), dtype=torch.uint8, pin_memory=device.type == "cuda")
    np.stack(arrays, out=batch.numpy())
    return batch.to(device, non_blocking=True)


def count_gpus() -> int:
    """CUDA devices that can be used here."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def claim_gpu() -> None:
    """Makes a GPU that no other worker on this machine has claimed, if there is one, what `cuda` means in this thread."""
    count = count_gpus()
    if count:
        torch.cuda.set_device(_claimed_index(count))


def claim(count: int, *, folder: Path) -> int:
    """The first of `count` devices whose lock in `folder` is free. Where all are taken, workers share them evenly: each device has a
    second lock, and a third. The system frees a lock when its process ends, however it does."""
    folder.mkdir(parents=True, exist_ok=True)
    # Of those on the machine, a scheduler may let us see but some.
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
    raise AssertionError("counting has no end")


@functools.cache
def _claimed_index(count: int) -> int:
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    return claim(count, folder=Path(tempfile.gettempdir()) / f"batchemo-gpus-{user}")


_locks: list[FileLock] = []
"""They are given back when they are collected."""
