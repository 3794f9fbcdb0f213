"""Chooses clips: a small set that covers all pairs of features, or all clips."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator

from checks.corpus.clips import AXES, Recipe, makeable

_TRIES = 60
"""Attempts to complete a pair at random before it is considered impossible."""
_CHOICE = 8
"""Candidates for each next clip; the one that covers most new pairs is taken."""

_Pair = tuple[tuple[str, str], tuple[str, str]]


def pairwise(seed: int) -> list[Recipe]:
    """Clips that together cover all possible pairs of values, those that cover most first. Deterministic for a seed."""
    decide = random.Random(seed)
    open_pairs = [(left, right) for one, other in itertools.combinations(AXES, 2) for left in _values(one) for right in _values(other)]
    shown: set[_Pair] = set()
    chosen = []
    for pair in decide.sample(open_pairs, len(open_pairs)):
        if pair in shown:
            continue
        found = [recipe for _ in range(_CHOICE) if (recipe := _with(pair, decide)) is not None]
        if not found:
            continue
        best = max(found, key=lambda recipe: len(_pairs(recipe) - shown))
        shown |= _pairs(best)
        chosen.append(best)
    return _most_first(chosen)


def everything(seed: int) -> Iterator[Recipe]:
    """Every codec in every container with every value of one other axis, followed by the pairs of the other axes."""
    decide = random.Random(seed)
    seen = set()
    plain = [
        Recipe(codec=codec, container=container, colours="bt601_full" if codec == "mjpeg" else "bt601", first=decide.randrange(900))
        for codec in AXES["codec"]
        for container in AXES["container"]
    ]
    alone = (_changed(recipe, axis, value) for recipe in plain for axis, values in AXES.items() for value in values)
    for recipe in itertools.chain((each for each in alone if makeable(each)), pairwise(seed)):
        if str(recipe) not in seen:
            seen.add(str(recipe))
            yield recipe


def _values(axis: str) -> list[tuple[str, str]]:
    return [(axis, value) for value in AXES[axis]]


def _changed(recipe: Recipe, axis: str, value: str) -> Recipe:
    return dataclasses.replace(recipe, **{axis: value})  # type: ignore[arg-type]


def _with(pair: _Pair, decide: random.Random) -> Recipe | None:
    """A clip with both values of `pair`; every other axis gets a random value if the clip can still be made, or else its default."""
    fixed = dict(pair)
    for _ in range(_TRIES):
        values = {axis: fixed.get(axis, decide.choice(AXES[axis]) if axis in ("codec", "container") else AXES[axis][0]) for axis in AXES}
        recipe = Recipe(**values, first=decide.randrange(900))  # type: ignore[arg-type]
        if not makeable(recipe):
            continue
        for axis in decide.sample([axis for axis in AXES if axis not in fixed], len(AXES) - len(fixed)):
            other = _changed(recipe, axis, decide.choice(AXES[axis]))
            recipe = other if makeable(other) else recipe
        return recipe
    return None


def _pairs(recipe: Recipe) -> set[_Pair]:
    return set(itertools.combinations(((axis, getattr(recipe, axis)) for axis in AXES), 2))


def _most_first(recipes: list[Recipe]) -> list[Recipe]:
    left, shown, ordered = list(recipes), set[_Pair](), []
    while left:
        best = max(left, key=lambda recipe: len(_pairs(recipe) - shown))
        left.remove(best)
        new = _pairs(best) - shown
        if not new:
            break
        shown |= new
        ordered.append(best)
    return ordered
