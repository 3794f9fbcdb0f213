"""Scenes with known identities: pictures of faces on bodies that move, turn, cross, hide and leave, as a camera would see them.

The truth comes from the script of a scene, and faces are seen as a detector would see them, with errors and misses, so that tracking
is measured without detection; or the pictures go through the whole pipeline.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from batchemo.faces.align import EYE_DISTANCE, EYE_TO_MOUTH, EYES_CENTRE
from batchemo.records import Faces

WIDTH, HEIGHT = 640, 360
"""Size of the pictures, px."""

SEEN_SHARE = 0.5
"""A face of which less is visible is not in the truth; a detector may find it from .35 on."""

_FACE_PX = 96
_BOX = np.array([0.1, 0.04, 0.9, 1.0])
"""The box of a face, as shares of a FER2013 picture of it."""
_POINTS = np.array(
    [
        (EYES_CENTRE[0] - EYE_DISTANCE / 2, EYES_CENTRE[1]),
        (EYES_CENTRE[0] + EYE_DISTANCE / 2, EYES_CENTRE[1]),
        (EYES_CENTRE[0], EYES_CENTRE[1] + 0.24),
        (EYES_CENTRE[0] - 0.16, EYES_CENTRE[1] + EYE_TO_MOUTH),
        (EYES_CENTRE[0] + 0.16, EYES_CENTRE[1] + EYE_TO_MOUTH),
    ]
)
_SKIN = np.array([(255, 219, 190), (240, 194, 160), (224, 172, 130), (198, 134, 92), (170, 118, 88)], np.float32)
_CLOTHES = np.array([(35, 35, 42), (40, 50, 85), (110, 112, 118), (225, 225, 220), (150, 120, 85), (120, 40, 45), (60, 95, 70)], np.float32)
"""Few and sober, so that two of three people are dressed like somebody else."""
_GRID = np.stack(np.meshgrid(np.linspace(-1, 1, 25), np.linspace(-1, 1, 25)), axis=-1)
"""Where the field of a warp is computed, -1 to 1 from side to side; it is smooth."""

Pixels = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Person:
    """`face` float32 96 x 96 x 3 RGB and `clothes` float32 64 x 64 x 3; `features` seeds what moves in the face."""

    face: NDArray[np.float32]
    clothes: NDArray[np.float32]
    features: int


@dataclasses.dataclass(frozen=True)
class Actor:
    """A person in a shot. `keys` N x 4: second, x and y of the face's centre and side (px), linear in between; later ones stand in front.

    `yaw` and `roll`: how far the head turns (radians, at most), `hidden`: stretches of seconds in which a hand is before the face.
    """

    person: int
    keys: NDArray[np.float64]
    yaw: float = 0.3
    roll: float = 0.12
    phase: float = 0.0
    hidden: tuple[tuple[float, float], ...] = ()

    def at(self, time_s: float) -> tuple[float, float, float]:
        x, y, side = (float(np.interp(time_s, self.keys[:, 0], self.keys[:, column])) for column in (1, 2, 3))
        sway = np.sin(2 * np.pi * (time_s * np.array([0.43, 0.61]) + self.phase))
        return x + 0.06 * side * float(sway[0]), y + 0.04 * side * float(sway[1]), side

    def pose(self, time_s: float) -> tuple[float, float, float]:
        """Yaw and roll (radians), and how far the expression is (-1 to 1)."""
        turns = np.sin(2 * np.pi * (time_s * np.array([0.31, 0.23, 0.52]) + np.array([2.0, 3.0, 5.0]) * self.phase))
        return self.yaw * float(turns[0]), self.roll * float(turns[1]), float(turns[2])


@dataclasses.dataclass(frozen=True)
class Shot:
    """What one camera sees until `end_s`. `light` multiplies red, green and blue, `pan` is the camera's way in px at most."""

    end_s: float
    actors: tuple[Actor, ...]
    scenery: int
    light: tuple[float, float, float] = (1.0, 1.0, 1.0)
    pan: float = 20.0


@dataclasses.dataclass(frozen=True)
class Scene:
    """Shots one after the other, `fps` pictures a second; `people` are those that actors are named by."""

    kind: str
    people: tuple[Person, ...]
    shots: tuple[Shot, ...]
    fps: float
    seed: int

    @property
    def seconds(self) -> float:
        return self.shots[-1].end_s


@dataclasses.dataclass(frozen=True)
class View:
    """A picture of a scene: who is truly where (`ids` N, `boxes` float64 N x 4), and the `faces` that a detector finds in it."""

    time_s: float
    pixels: Pixels
    cut: bool
    ids: list[int]
    boxes: NDArray[np.float64]
    faces: Faces


def cast(faces: NDArray[np.uint8], *, seed: int) -> tuple[Person, ...]:
    """A person for each of the faces, uint8 N x 48 x 48 grey or N x 48 x 48 x 3, in the framing of FER2013."""
    random = np.random.default_rng(seed)
    people = []
    for number, face in enumerate(faces):
        large = cv2.resize(face, (_FACE_PX, _FACE_PX), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        if large.ndim == 2:
            large = large[..., None] / 255 * (_SKIN[random.integers(len(_SKIN))] + random.uniform(-8, 8, 3).astype(np.float32))
        colours = _CLOTHES[random.integers(len(_CLOTHES), size=2)] + random.uniform(-10, 10, (2, 3)).astype(np.float32)
        stripes = (np.arange(64) // random.integers(3, 20) % 2)[:, None, None] * random.choice([0.0, 0.0, 0.0, 1.0])
        clothes = colours[0] + (colours[1] - colours[0]) * stripes + random.normal(0, 6, (64, 64, 1))
        people.append(Person(large, clothes.clip(0, 255).astype(np.float32), int(random.integers(2**31)) + number))
    return tuple(people)


def play(scene: Scene) -> Iterator[View]:
    """The pictures of a scene, in order."""
    random = np.random.default_rng(scene.seed)
    shot, scenery = -1, np.empty(0, np.uint8)
    drift = np.zeros((0, 8))
    for index in range(int(scene.seconds * scene.fps)):
        time_s = index / scene.fps
        now = next(number for number, each in enumerate(scene.shots) if time_s < each.end_s)
        cut = now != shot
        if cut:
            shot, scenery = now, _scenery(scene.shots[now].scenery)
            drift = random.normal(0, 1, (len(scene.shots[now].actors), 8))
        # Errors of a detector stay alike from one frame to the next, more so the closer these are.
        memory = float(np.exp(-8 / scene.fps))
        drift = memory * drift + np.sqrt(1 - memory**2) * random.normal(0, 1, drift.shape)
        pixels, ids, boxes, points, visible = _draw(scene, scene.shots[now], scenery, time_s)
        faces = _detected(boxes, points, visible, drift, random)
        seen = visible >= SEEN_SHARE
        yield View(time_s, pixels, cut and index > 0, [who for who, there in zip(ids, seen, strict=True) if there], boxes[seen], faces)


def _detected(
    boxes: NDArray[np.float64],
    points: NDArray[np.float64],
    visible: NDArray[np.float64],
    drift: NDArray[np.float64],
    random: np.random.Generator,
) -> Faces:
    """What MTCNN and optical flow make of the faces: boxes of IoU .9, landmarks 2 % off, half-hidden faces lost more often than not."""
    sides = boxes[:, 3:] - boxes[:, 1:2]
    noisy = boxes + sides * (0.02 * np.tile(drift[:, :2], 2) + 0.02 * drift[:, 2:6])
    marks = points + sides[:, None] * (0.008 * drift[:, None, 6:8] + random.normal(0, 0.012, points.shape))
    chance = np.interp(visible, [0.3, 0.35, 0.5, 0.7, 0.9], [0, 0.1, 0.5, 0.9, 0.995])
    found = random.uniform(size=len(boxes)) < chance
    scores = np.full(len(boxes), 0.99, np.float32)
    return Faces(noisy.astype(np.float32), marks.astype(np.float32), scores).subset(found).largest_first()


def _scenery(seed: int) -> Pixels:
    """Coloured blurs and boxes, wider than the picture, so that the camera can pan."""
    random = np.random.default_rng(seed)
    size = (WIDTH + 400, HEIGHT + 100)
    base = random.integers(20, 235, (int(random.integers(3, 12)), int(random.integers(4, 20)), 3)).astype(np.uint8)
    wall = np.asarray(cv2.resize(base, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    for _ in range(12):
        (x, y), (w, h) = random.integers(0, size), random.integers(10, 150, 2)
        cv2.rectangle(wall, (int(x), int(y)), (int(x + w), int(y + h)), random.integers(0, 255, 3).tolist(), -1)
    return np.asarray((0.6 * wall + random.integers(0, 90)).clip(0, 255), np.uint8)


def _draw(
    scene: Scene, shot: Shot, scenery: Pixels, time_s: float
) -> tuple[Pixels, list[int], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The picture, and for each actor: who, box (N x 4), landmarks (N x 5 x 2), visible share of the face (N)."""
    swing = np.sin(2 * np.pi * time_s * np.array([0.27, 0.19]) + shot.scenery % 7)
    dx, dy = shot.pan * swing * (1, 0.2)
    left, top = int(200 + np.clip(dx, -200, 200)), int(50 + np.clip(dy, -50, 50))
    canvas = scenery[top : top + HEIGHT, left : left + WIDTH].astype(np.float32)
    owner = np.full((HEIGHT, WIDTH), -1, np.int16)
    boxes, points, areas, ids = [], [], [], []
    for number, actor in enumerate(shot.actors):
        x, y, side = actor.at(time_s)
        yaw, roll, mood = actor.pose(time_s)
        person = scene.people[actor.person]
        centre = np.array([x - dx, y - dy])
        _draw_body(canvas, owner, person.clothes, centre, side)
        areas.append(_draw_head(canvas, owner, number, person, centre, side, yaw, roll, mood))
        if any(start <= time_s < end for start, end in actor.hidden):
            _draw_hand(canvas, owner, centre, side)
        turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
        marks = (_POINTS - 0.5) * 2
        marks[:, 0] = np.sin(np.arcsin(np.clip(0.8 * marks[:, 0], -1, 1)) + yaw) / 0.8
        points.append(centre + side / 2 * marks @ turn)
        shift = 0.1 * side * np.sin(yaw)
        boxes.append(np.tile((centre[0] + shift, centre[1]), 2) + side * (_BOX - 0.5))
        ids.append(actor.person)
    shown = [np.count_nonzero(owner == number) / max(area, 1.0) for number, area in enumerate(areas)]
    canvas *= np.array(shot.light, np.float32)
    pixels = np.asarray(canvas.clip(0, 255), np.uint8)
    return pixels, ids, np.array(boxes).reshape(-1, 4), np.array(points).reshape(-1, 5, 2), np.minimum(np.array(shown), 1.0)


def _place(canvas: NDArray[np.float32], corner: NDArray[np.float64], width: int, height: int) -> tuple[slice, slice, slice, slice] | None:
    """Rows and columns of the picture and of a patch of this size at `corner` that meet; None where none do."""
    x, y = (int(value) for value in np.rint(corner))
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + width, canvas.shape[1]), min(y + height, canvas.shape[0])
    if x2 <= x1 or y2 <= y1:
        return None
    return slice(y1, y2), slice(x1, x2), slice(y1 - y, y2 - y), slice(x1 - x, x2 - x)


def _draw_body(
    canvas: NDArray[np.float32], owner: NDArray[np.int16], clothes: NDArray[np.float32], centre: NDArray[np.float64], side: float
) -> None:
    width, height = max(2, int(1.9 * side)), max(2, int(2.2 * side))
    place = _place(canvas, centre + side * np.array([-0.95, 0.42]), width, height)
    if place is None:
        return
    rows, columns, inner_rows, inner_columns = place
    across = np.abs(np.linspace(-1, 1, width))[None] ** 4 * 0.5
    inside = (across <= np.linspace(0, 2.2, height)[:, None])[inner_rows, inner_columns]
    patch = cv2.resize(clothes, (width, height), interpolation=cv2.INTER_LINEAR)[inner_rows, inner_columns]
    canvas[rows, columns][inside] = patch[inside]
    owner[rows, columns][inside] = -1


def _draw_head(
    canvas: NDArray[np.float32],
    owner: NDArray[np.int16],
    number: int,
    person: Person,
    centre: NDArray[np.float64],
    side: float,
    yaw: float,
    roll: float,
    mood: float,
) -> float:
    """Draws it turned and with an expression; the area of the whole head in px."""
    width = max(4, int(1.1 * side))
    turned = _GRID * 1.1 @ np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    inside = cv2.resize(turned.astype(np.float32), (width, width), interpolation=cv2.INTER_LINEAR)
    inside = (inside[..., 0] / 0.86) ** 2 + (inside[..., 1] / 1.04) ** 2 <= 1
    # A cylinder that turns about its axis, and features that move a little with the expression.
    source = turned.copy()
    source[..., 0] = np.sin(np.arcsin(np.clip(0.8 * turned[..., 0], -1, 1)) - yaw) / 0.8
    waves = np.random.default_rng(person.features).uniform(-1, 1, (2, 5))
    for axis in (0, 1):
        a, b, c, d, e = waves[axis]
        source[..., axis] += (
            0.045 * mood * np.sin(3 * (a * turned[..., 0] + b * turned[..., 1]) + 3 * c) * (0.7 + 0.3 * d) + 0.02 * e * mood
        )
    fields = cv2.resize(((source + 1) / 2 * (_FACE_PX - 1)).astype(np.float32), (width, width), interpolation=cv2.INTER_LINEAR)
    place = _place(canvas, centre - 0.55 * side, width, width)
    if place is not None:
        rows, columns, inner_rows, inner_columns = place
        fields, shape = fields[inner_rows, inner_columns], inside[inner_rows, inner_columns]
        picture = person.face if side >= _FACE_PX / 1.5 else cv2.GaussianBlur(person.face, (0, 0), 0.4 * _FACE_PX / side)
        patch = cv2.remap(picture, fields[..., 0], fields[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        # Light from one side, as the head turns.
        patch *= 1 + 0.25 * yaw * (fields[..., :1] / (_FACE_PX / 2) - 1)
        canvas[rows, columns][shape] = patch[shape]
        owner[rows, columns][shape] = number
    return float(np.count_nonzero(inside))


def _draw_hand(canvas: NDArray[np.float32], owner: NDArray[np.int16], centre: NDArray[np.float64], side: float) -> None:
    shape = np.zeros(owner.shape, np.uint8)
    x, y = (int(value) for value in centre)
    cv2.ellipse(shape, (x, y), (int(0.62 * side), int(0.66 * side)), 0, 0, 360, 1, -1)
    hidden = shape > 0
    canvas[hidden] = (205, 150, 120)
    owner[hidden] = -1
