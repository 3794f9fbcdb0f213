"""Scenarios in which trackers lose identities: crossings, occlusions, cuts and returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.tracking.scenes import HEIGHT, WIDTH, Actor, Person, Scene, Shot

FRAME_RATES = (5, 10, 24, 30, 60)
"""Frames per second; the scenes take turns."""

SECONDS, SECONDS_OF_CUTS = 12.0, 24.0
"""Length of a scene without and with cuts, s."""


def make_scene(kind: str, people: tuple[Person, ...], *, seed: int, fps: float | None = None) -> Scene:
    """A scene of one of `KINDS` with some of the `people`; another one for each seed. Without `fps` it has one of `FRAME_RATES`."""
    random = np.random.default_rng([list(KINDS).index(kind), seed])
    chosen = tuple(people[int(number)] for number in random.permutation(len(people))[:10])
    return Scene(kind, chosen, KINDS[kind](random), fps or FRAME_RATES[seed % len(FRAME_RATES)], seed)


def _actor(random: np.random.Generator, person: int, keys: Any, **more: Any) -> Actor:
    return Actor(person, np.array(keys, np.float64).reshape(-1, 4), phase=float(random.uniform(0, 1)), **more)


def _stroll(random: np.random.Generator, person: int, *, x: float, side: float, **more: Any) -> Actor:
    """Walks about a place."""
    y, steps = random.uniform(110, 180), np.linspace(0, SECONDS_OF_CUTS, 12)
    keys = [(t, x + random.uniform(-40, 40), y + random.uniform(-12, 12), side * random.uniform(0.93, 1.07)) for t in steps]
    return _actor(random, person, keys, **more)


def _shot(random: np.random.Generator, actors: list[Actor], *, end_s: float = SECONDS, light: float = 0.0, pan: float = 20.0) -> Shot:
    """Actors with larger faces stand in front."""
    near = sorted(actors, key=lambda actor: float(actor.keys[:, 3].mean()))
    gains = 1 + random.uniform(-light, light) + random.uniform(-light / 3, light / 3, 3)
    return Shot(end_s, tuple(near), int(random.integers(2**31)), (float(gains[0]), float(gains[1]), float(gains[2])), pan)


def _alone(random: np.random.Generator) -> tuple[Shot, ...]:
    actor = _stroll(random, 0, x=random.uniform(200, 440), side=random.uniform(60, 150), yaw=0.6, roll=0.3)
    return (_shot(random, [actor], pan=60),)


def _crossing(random: np.random.Generator) -> tuple[Shot, ...]:
    """Two or three people walk past each other, to and fro, at different distances."""
    actors = []
    for person in range(int(random.integers(2, 4))):
        side, y, walk = random.uniform(65, 110), random.uniform(120, 160), random.uniform(2, 4)
        ends = (random.uniform(70, 150), random.uniform(490, 570))
        times = np.arange(-1, SECONDS + walk, walk)
        keys = [(t, ends[(turn + person) % 2], y + random.uniform(-15, 15), side) for turn, t in enumerate(times)]
        actors.append(_actor(random, person, keys))
    return (_shot(random, actors),)


def _hidden(random: np.random.Generator) -> tuple[Shot, ...]:
    """A hand passes in front of each face, for 0.15 to 0.45 s."""
    actors = []
    for person in range(2):
        starts = np.arange(1.0, SECONDS - 1, 1.7) + random.uniform(0, 0.8)
        hidden = tuple((float(start), float(start + random.uniform(0.15, 0.45))) for start in starts)
        actors.append(_stroll(random, person, x=190 + 260 * person, side=random.uniform(70, 130), hidden=hidden))
    return (_shot(random, actors),)


def _zoom(random: np.random.Generator) -> tuple[Shot, ...]:
    """Two people come near and go away again."""
    actors = []
    for person in range(2):
        times, first = np.linspace(0, SECONDS, 8), int(random.integers(2))
        keys = [
            (t, 180 + 280 * person, 170, random.uniform(45, 60) if (turn + first) % 2 else random.uniform(120, 200))
            for turn, t in enumerate(times)
        ]
        actors.append(_actor(random, person, keys))
    return (_shot(random, actors),)


def _handheld(random: np.random.Generator) -> tuple[Shot, ...]:
    """The camera swings, so all people move at once."""
    actors = [_stroll(random, person, x=180 + 140 * person, side=random.uniform(55, 80), roll=0.3) for person in range(3)]
    return (_shot(random, actors, pan=150),)


def _crowd(random: np.random.Generator) -> tuple[Shot, ...]:
    """Ten people in two rows. In each row two neighbours change places, four times."""
    places = [(60 + 130 * (number % 5), 90 + 120 * (number // 5)) for number in range(10)]
    turns = np.linspace(0, SECONDS, 5)
    order = np.arange(10)
    paths: list[list[tuple[float, ...]]] = [[] for _ in range(10)]
    sides = np.concatenate([random.uniform(50, 58, 5), random.uniform(62, 72, 5)])
    for t in turns:
        for person, place in enumerate(order):
            paths[person].append((t, places[place][0] + random.uniform(-15, 15), places[place][1] + random.uniform(-10, 10), sides[person]))
        for pair in (random.integers(4), 5 + random.integers(4)):
            order[order == pair], order[order == pair + 1] = pair + 1, pair
    return (_shot(random, [_actor(random, person, keys) for person, keys in enumerate(paths)]),)


def _returning(random: np.random.Generator) -> tuple[Shot, ...]:
    """Two people leave the picture and return after one to four seconds; one stays."""
    actors = [_stroll(random, 0, x=320, side=random.uniform(60, 100))]
    for person in (1, 2):
        inside, outside = (160.0, -140.0) if person == 1 else (480.0, WIDTH + 140.0)
        y, side, t = random.uniform(120, 180), random.uniform(70, 110), 0.0
        keys: list[tuple[float, ...]] = []
        while t < SECONDS:
            stay, away = random.uniform(1.5, 3), random.uniform(1, 4)
            keys += [(t, inside, y, side), (t + stay, inside + random.uniform(-40, 40), y, side)]
            keys += [(t + stay + 0.6, outside, y, side), (t + stay + 0.6 + away, outside, y, side)]
            t += stay + away + 1.2
        actors.append(_actor(random, person, keys))
    return (_shot(random, actors),)


def _cuts(random: np.random.Generator) -> tuple[Shot, ...]:
    """Shots of two to four people, with other distances and lighting. All of them appear again."""
    company = int(random.integers(2, 5))
    return tuple(_camera(random, random.permutation(company)[: random.integers(1, 4)], end_s=end) for end in _ends(random))


def _strangers(random: np.random.Generator) -> tuple[Shot, ...]:
    """Like `_cuts`, but every shot brings a new person, up to ten."""
    shots = []
    for number, end in enumerate(_ends(random)):
        known = random.permutation(min(number, 9))[: random.integers(0, 3)].tolist()
        shots.append(_camera(random, np.array([*known, min(number, 9)]), end_s=end))
    return tuple(shots)


def _ends(random: np.random.Generator) -> list[float]:
    return [float(end) for end in np.cumsum(random.uniform(2, 4, 12)) if end < SECONDS_OF_CUTS - 1] + [SECONDS_OF_CUTS]


def _camera(random: np.random.Generator, people: NDArray[np.int64], *, end_s: float) -> Shot:
    side = random.uniform(60, 75) if len(people) > 2 else random.uniform(60, 140)
    places = (np.arange(len(people)) + 0.5) * WIDTH / len(people)
    actors = [_stroll(random, int(person), x=float(x), side=side, yaw=0.45) for person, x in zip(people, places, strict=True)]
    return _shot(random, actors, end_s=end_s, light=0.2, pan=HEIGHT / 9)


KINDS: dict[str, Callable[[np.random.Generator], tuple[Shot, ...]]] = {
    "alone": _alone,
    "crossing": _crossing,
    "hidden": _hidden,
    "zoom": _zoom,
    "handheld": _handheld,
    "crowd": _crowd,
    "returning": _returning,
    "cuts": _cuts,
    "strangers": _strangers,
}
"""By name; those in `RETURNS` have cuts or returns."""

RETURNS = ("returning", "cuts", "strangers")
