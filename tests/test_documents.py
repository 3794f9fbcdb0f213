"""What documents refer to exists: links and their anchors, paths, and the modules that ARCHITECTURE.md names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for pattern in ("*.md", "[!.]*/*.md") for path in ROOT.glob(pattern))


def text_of(document: Path) -> str:
    """Without blocks of code, in which `](` and backticks mean other things."""
    return re.sub(r"^ *```.*?^ *```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text_of(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    document = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        linked = document.parent / path if path else document
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "README.md", "SCALING.md", "jobs/README.md"])
def test_paths_exist(name: str) -> None:
    named = set(re.findall(r"`((?:batchemo|bench|checks|docs|jobs|sample_media|tests|training)/[\w./-]*)`", text_of(ROOT / name)))
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_modules_of_the_architecture_exist() -> None:
    packages = {path.parent.name for path in (ROOT / "batchemo").glob("*/__init__.py")}
    named = set(re.findall(r"`(\w+\.\w+)`", text_of(ROOT / "ARCHITECTURE.md")))
    modules = {name for name in named if name.partition(".")[0] in packages} - {"media.parquet", "run.json"}
    assert len(modules) > 20
    assert [name for name in sorted(modules) if not (ROOT / "batchemo" / f"{name.replace('.', '/')}.py").exists()] == []
