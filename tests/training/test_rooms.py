"""The rooms of `training/`: which package may import which, no cycle of modules, and no public name twice."""

from __future__ import annotations

from graphlib import TopologicalSorter

from tests.source_code import ROOT, defined_twice, imports_of, modules_of

ARROWS = {
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

MODULES = {name: path for name, path in modules_of("training").items() if name != "training"}


def room(module: str) -> str:
    return module.split(".")[1]


def test_rooms_import_what_the_list_says() -> None:
    found: dict[str, set[str]] = {room(module): set() for module in MODULES}
    for module, path in MODULES.items():
        found[room(module)] |= {room(other) for other in imports_of(path, MODULES)} - {room(module)}
    assert found == ARROWS


def test_arrows_go_in_one_direction() -> None:
    seen: set[str] = set()
    for name, others in ARROWS.items():
        assert others <= seen, name
        seen.add(name)


def test_modules_have_no_cycle() -> None:
    list(TopologicalSorter({module: imports_of(path, MODULES) for module, path in MODULES.items()}).static_order())


def test_no_public_name_is_defined_twice() -> None:
    assert defined_twice("training") == {}


def test_the_top_level_stays_small() -> None:
    assert len([*(ROOT / "training").glob("*.py")]) <= 6
