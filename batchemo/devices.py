"""Where networks run: the CPU or a CUDA device."""

from __future__ import annotations

import functools
import os
import re
import tempfile
from pathlib import Path

import torch
from filelock import FileLock, Timeout

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


def count_gpus() -> int:
    """CUDA devices that can be used here."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


@functools.cache
def claim_gpu() -> int:
    """Makes a GPU that no other worker on this machine has claimed the one that `cuda` means in this thread, until the process ends."""
    count = count_gpus()
    index = claim(count, folder=Path(tempfile.gettempdir()) / f"batchemo-gpus-{os.getuid()}")
    torch.cuda.set_device(index)
    return index


def claim(count: int, *, folder: Path) -> int:
    """The first of `count` devices whose lock in `folder` is free; the system frees it when this process ends, however it does. Where all
    are taken they are shared."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        lock = FileLock(folder / f"device{index}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        _claimed.append(lock)
        return index
    return os.getpid() % count


_claimed: list[FileLock] = []
"""Locks are given back when they are collected."""
