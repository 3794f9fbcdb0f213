"""The imports are what ARCHITECTURE.md says, and the quick commands stay quick."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "batchemo"


def rows() -> dict[str, int]:
    """The row of each module, counted from above."""
    found: dict[str, int] = {}
    lines = [line for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines() if line.startswith("| ")]
    for number, line in enumerate(lines):
        for module in re.findall(r"`([a-z_.]+)`", line):
            found[module] = number
    return found


def modules() -> dict[str, Path]:
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name not in {"__init__.py", "__main__.py"}]
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in paths}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("batchemo."):
            module = node.module.removeprefix("batchemo.")
            packed = (PACKAGE / module.replace(".", "/") / "__init__.py").exists()
            found |= {f"{module}.{alias.name}" for alias in node.names} if packed else {module}
        elif isinstance(node, ast.ImportFrom) and node.module in {"training", "batchemo"}:
            found |= {alias.name for alias in node.names if alias.name != "__version__"}
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith(("training", "batchemo.")) for alias in node.names)
    return found


def test_every_module_has_its_row() -> None:
    assert set(rows()) == set(modules())


@pytest.mark.parametrize("module", sorted(modules()))
def test_modules_import_only_from_rows_above(module: str) -> None:
    table = rows()
    wrong = {other for other in imports(modules()[module]) if table[other] >= table[module]}
    assert not wrong


def test_the_page_is_short() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 40


@pytest.mark.parametrize("code", ["import batchemo", "import batchemo.cli", "import batchemo.run", "import batchemo.results"])
def test_no_torch_and_no_decoder_is_loaded_before_it_is_needed(code: str) -> None:
    script = f"{code}\nimport sys\nprint(*[name for name in ('torch', 'cv2', 'av', 'decord') if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []


def test_help_loads_neither_torch_nor_pandas() -> None:
    script = (
        "import sys\nfrom batchemo.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(*[name for name in ('torch', 'pandas', 'pyarrow') if name in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "run" in ended.stdout
    assert ended.stderr.split() == []
