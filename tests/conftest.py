"""What the tests of training share: small data, a network that was fitted to them, and the command line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.needs import need, required

# Threads for tiny matrices, and threads that spin while they wait, take many times as long on a busy machine. Both are read when the
# libraries are loaded, also by subprocesses.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from batchemo.emotion.model import ExpressionNet
    from tests.browser import Browser
    from tests.patterns import Done
    from training.recipe import Recipe


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(name, ...): what the machine must have; see tests/needs.py")
    required()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        need(*mark.args)


@pytest.fixture(autouse=True)
def the_level_of_the_log_stays() -> Iterator[None]:
    """Commands that are run within this process set it, `--quiet` ones so that the next test would see no warning."""
    logger = logging.getLogger("batchemo")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.fixture
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def _chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests: starting it takes a second."""
    from tests.browser import browsing

    with browsing(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def browser(_chromium: Browser) -> Iterator[Browser]:
    """A window of 1280 x 900, whose console must stay empty."""
    _chromium.clear()
    yield _chromium
    assert _chromium.complaints() == []


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.patterns import rows, write_csv

    return write_csv(tmp_path_factory.mktemp("data") / "fer2013.csv", rows())


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.patterns import RECIPE
    from training.recipe import to_toml

    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(to_toml(RECIPE))
    return path


@pytest.fixture(scope="session")
def recipe(recipe_file: Path) -> Recipe:
    from training.recipe import read_recipe

    return read_recipe(recipe_file)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """`python -m training ARGUMENTS` within this process."""
    from tests.patterns import Done
    from training import cli

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
        with pytest.raises(SystemExit) as exited:
            cli.main()
        return Done(int(exited.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def fitted(recipe: Recipe, data: Path, tmp_path_factory: pytest.TempPathFactory) -> ExpressionNet:
    import torch

    from tests.patterns import train

    torch.set_num_threads(1)
    return train(recipe, data, tmp_path_factory.mktemp("run"))
