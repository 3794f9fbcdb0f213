"""The rooms of `training/`: which package may import which, no cycle of modules, and no public name twice."""

from __future__ import annotations

import ast
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "training"

ARROWS = {
    "__init__": set(),
    "console": set(),
    "recipe": set(),
    "inference": set(),
    "data": {"console", "recipe"},
    "evaluate": {"console", "data", "inference"},
    "export": {"data", "evaluate", "recipe"},
    "fit": {"console", "data", "evaluate", "export", "inference", "recipe"},
    "tracking": set(),
    "prefilter": set(),
    "commands": {"console", "data", "evaluate", "export", "fit", "inference", "prefilter", "recipe", "tracking"},
    "cli": {"commands", "console"},
    "__main__": {"cli"},
}
"""What each room, or module outside the rooms, imports; rooms come after those that they import."""

MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    return module.split(".")[1]


def imports(module: str) -> set[str]:
    """The modules of `training` that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else str(node.module) for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "training"}


def public_names(module: str) -> set[str]:
    """Classes, functions and constants without an underscore that a module defines."""
    found: set[str] = set()
    for node in ast.parse(MODULES[module].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return {name for name in found if not name.startswith("_")}


def test_rooms_import_what_the_list_says() -> None:
    found: dict[str, set[str]] = {room(module): set() for module in MODULES}
    for module in MODULES:
        found[room(module)] |= {room(other) for other in imports(module)} - {room(module)}
    assert found == ARROWS


def test_arrows_go_in_one_direction() -> None:
    seen: set[str] = set()
    for name, others in ARROWS.items():
        assert others <= seen, name
        seen.add(name)


def test_modules_have_no_cycle() -> None:
    list(TopologicalSorter({module: imports(module) for module in MODULES}).static_order())


def test_no_public_name_is_defined_twice() -> None:
    owners = defaultdict(list)
    for module in MODULES:
        for name in public_names(module):
            owners[name].append(module)
    assert {name: modules for name, modules in owners.items() if len(modules) > 1} == {}


def test_the_top_level_stays_small() -> None:
    assert len([module for module in MODULES if module.count(".") == 1]) <= 6
