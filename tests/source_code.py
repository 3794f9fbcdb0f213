"""What the source code of a package says of itself: its modules, their imports and their public names."""

from __future__ import annotations

import ast
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).parents[1]


def modules_of(package: str) -> dict[str, Path]:
    """Every module of a package of this repository, by its dotted name; a package stands for its `__init__.py`."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path: Path, known: Collection[str]) -> set[str]:
    """The modules among `known` that a file imports, anywhere in it. Imports must be absolute."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(known)


def public_names_of(path: Path) -> set[str]:
    """Functions, classes and constants that a module defines, without an underscore."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return {name for name in found if not name.startswith("_")}


def defined_twice(package: str) -> dict[str, list[str]]:
    """Public names that more than one module of a package defines, with these modules."""
    owners: dict[str, list[str]] = {}
    for module, path in modules_of(package).items():
        for name in public_names_of(path):
            owners.setdefault(name, []).append(module)
    return {name: found for name, found in owners.items() if len(found) > 1}
