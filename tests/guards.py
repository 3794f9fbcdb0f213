"""Guards over every test: it leaves no process and logs no ERROR that it does not expect. `pytest-socket` keeps it off the network."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator

import psutil
import pytest

_HELPERS = ("resource_tracker", "semaphore_tracker", "forkserver")
"""Processes of multiprocessing that live as long as the process that started them; what a fork server starts is ours all the same."""

_PATIENCE_SECONDS = 5.0


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.name}: {record.getMessage()}")


@pytest.fixture(autouse=True)
def no_unexpected_errors_are_logged(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test in which an ERROR is logged, unless it reads the log, by `caplog`."""
    handler = _Errors()
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)
    if handler.messages and "caplog" not in request.fixturenames:
        pytest.fail(f"logged as ERROR: {handler.messages}; a test that expects this checks it by caplog", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Fails a test that leaves a process behind. Processes of its fixtures, and what these start meanwhile, may go on."""
    before = _children()
    result = yield
    fixtures = {process for process in before if not _is_helper(process)}
    left = [process for process in _children() - before if not _is_helper(process) and fixtures.isdisjoint(_ancestors(process))]
    _, alive = psutil.wait_procs(left, timeout=_PATIENCE_SECONDS)
    if alive:
        pytest.fail(f"left processes behind: {[_command(process) for process in alive]}", pytrace=False)
    return result


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _ancestors(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.parents()
    except psutil.Error:
        return []


def _is_helper(process: psutil.Process) -> bool:
    return any(name in _command(process) for name in _HELPERS)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
