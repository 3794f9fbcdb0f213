"""Guards over every test: it leaves no process and logs no ERROR that it does not expect. `pytest-socket` keeps it off the network."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator

import psutil
import pytest

_STAY = ("resource_tracker", "semaphore_tracker", "forkserver", "chrom")
"""Helpers of multiprocessing, and Chromium, live as long as the process that started them."""

_PATIENCE_SECONDS = 5.0


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.name}: {record.getMessage()}")


@pytest.fixture(autouse=True)
def no_unexpected_errors_are_logged(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test in which an ERROR is logged, unless it is marked `logs_errors` or reads the log itself, by `caplog`."""
    handler = _Errors()
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)
    expected = request.node.get_closest_marker("logs_errors") is not None or "caplog" in request.fixturenames
    if handler.messages and not expected:
        pytest.fail(f"logged as ERROR: {handler.messages}; mark the test logs_errors if it should", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fails a test that leaves a process behind. Those of its fixtures may go on: they belong to whole modules or sessions."""
    before = _children()
    result = yield
    if item.get_closest_marker("dask"):  # its cluster, a fixture, starts workers anew
        return result
    left = [process for process in _children() - before if not _stays(process)]
    _, alive = psutil.wait_procs(left, timeout=_PATIENCE_SECONDS)
    if alive:
        pytest.fail(f"left processes behind: {[_command(process) for process in alive]}", pytrace=False)
    return result


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _stays(process: psutil.Process) -> bool:
    return any(name in _command(process) for name in _STAY)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
