"""What tests need that may not be on a machine: they are skipped where it is missing, or fail where TESTS_REQUIRE names it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable

import pytest

REQUIRED = "TESTS_REQUIRE"
"""The variable that says what must be there, as in `chromium,ffmpeg`. Those that begin with BATCHEMO_ are options of runs."""


def _command(*names: str) -> Callable[[], bool]:
    return lambda: all(shutil.which(name) for name in names)


def _module(name: str) -> Callable[[], bool]:
    return lambda: importlib.util.find_spec(name) is not None


def _bfloat16() -> bool:
    """Whether oneDNN calculates in bfloat16 at all, natively or not."""
    from batchemo.devices import cpu_has

    return cpu_has("avx512_bw", "avx_ne_convert", unless_limited_to={"SSE41", "AVX", "AVX2", "AVX2_VNNI"})


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

_FOUND: dict[str, tuple[Callable[[], bool], str]] = {
    "chromium": (lambda: bool(CHROMIUM and DRIVER), "Debian's packages chromium and chromium-driver"),
    "ffmpeg": (_command("ffmpeg", "ffprobe"), "Debian's package ffmpeg"),
    "systemd-analyze": (_command("systemd-analyze"), "systemd-analyze"),
    "decord": (_module("decord"), "decord, which has no wheel for this machine"),
    "bfloat16": (_bfloat16, "a processor with AVX-512 or AVX-NE-CONVERT"),
    "distributed": (_module("distributed"), "the extra dask"),
}


def need(*names: str) -> None:
    """Skips the test, or the module whose import calls this, where something is missing; fails it where that is required."""
    for name in names:
        is_there, what = _FOUND[name]
        if not is_there():
            if name in required():
                pytest.fail(f"needs {what}, and {REQUIRED} says that it must be here", pytrace=False)
            pytest.skip(f"needs {what}", allow_module_level=True)


def required() -> frozenset[str]:
    """Raises pytest's UsageError where the variable names what no test asks for."""
    names = frozenset(filter(None, os.environ.get(REQUIRED, "").replace(" ", "").split(",")))
    if unknown := sorted(names - _FOUND.keys()):
        raise pytest.UsageError(f"{REQUIRED}: {', '.join(unknown)} is none of {', '.join(_FOUND)}")
    return names
