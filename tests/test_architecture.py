"""The imports are what ARCHITECTURE.md says, and the quick commands stay quick."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.source_code import ROOT, defined_twice, imports_of, modules_of

PACKAGE = ROOT / "batchemo"
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


@functools.cache
def graph() -> dict[str, set[str]]:
    """What each module imports; the face of the package, which hands on names from everywhere, is left out."""
    known = {name: path for name, path in modules_of("batchemo").items() if name not in {"batchemo", "batchemo.__main__"}}
    return {name: imports_of(path, known) for name, path in known.items()}


def package_of(module: str) -> str:
    """The package that a module is in; empty for one at the top."""
    parts = module.split(".")
    return parts[1] if (PACKAGE / parts[1]).is_dir() else ""


@functools.cache
def arrows() -> dict[str, set[str]]:
    """Which packages each package imports."""
    found: dict[str, set[str]] = {package_of(name): set() for name in graph() if package_of(name)}
    for name, others in graph().items():
        if package_of(name):
            found[package_of(name)] |= {package_of(other) for other in others} - {package_of(name), ""}
    return found


def reach(start: str, edges: Mapping[str, set[str]]) -> set[str]:
    """All that can be reached from `start` in at least one step."""
    found: set[str] = set()
    waiting = list(edges[start])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(edges[name])
    return found


def test_packages_import_what_the_page_says() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]*) ?\|$", PAGE.partition("\n## ")[0], flags=re.MULTILINE)
    assert {name: {*re.findall(r"\w+", others)} for name, others in rows} == arrows()


def test_the_diagram_shows_each_arrow_that_follows_from_no_others() -> None:
    edges = arrows()
    direct = {
        (name, other)
        for name, others in edges.items()
        for other in others
        if not any(other in reach(between, edges) for between in others - {other})
    }
    assert {*re.findall(r"^ +(\w+) --> (\w+)$", PAGE, flags=re.MULTILINE)} == direct


@pytest.mark.slow
def test_no_package_and_no_module_imports_itself_by_way_of_others() -> None:
    for edges in (arrows(), graph()):
        assert [name for name in edges if name in reach(name, edges)] == []


def test_modules_at_the_top_import_no_package() -> None:
    wrong = {name: found for name, others in graph().items() if not package_of(name) and (found := {*filter(package_of, others)})}
    assert wrong == {}


def test_the_top_of_the_package_is_short() -> None:
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert len(files) <= 12
    for module in files - {"__init__.py", "__main__.py", "py.typed"}:
        assert f"`{module.removesuffix('.py')}`" in PAGE


def test_the_package_does_not_know_what_is_built_upon_it() -> None:
    for path in modules_of("batchemo").values():
        assert not re.search(r"^\s*(from|import) (training|tests|checks|bench)\b", path.read_text(), flags=re.MULTILINE), path


def test_one_word_means_one_thing() -> None:
    """No public name is defined twice; README promises `transitions` as a table and as a plot."""
    assert set(defined_twice("batchemo")) == {"transitions"}


def test_tests_stand_where_their_packages_do() -> None:
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - {"training"} <= {path.name for path in PACKAGE.iterdir() if path.is_dir()}


@pytest.mark.parametrize("code", ["import batchemo", "import batchemo.cli.main", "import batchemo.run.run", "import batchemo.results.load"])
def test_no_torch_and_no_decoder_is_loaded_before_it_is_needed(code: str) -> None:
    script = f"{code}\nimport sys\nprint(*[name for name in ('torch', 'cv2', 'av', 'decord') if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []


def test_help_loads_neither_torch_nor_pandas() -> None:
    script = (
        "import sys\nfrom batchemo.cli.main import main_app\n"
        "try:\n    main_app(['run', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(*[name for name in ('torch', 'pandas', 'pyarrow') if name in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--timeout-s" in ended.stdout
    assert ended.stderr.split() == []
