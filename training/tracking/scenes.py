"""Synthetic scenes with known identities: rendered people who move, turn, cross, hide and leave.

The ground truth comes from the script of a scene. Simulated detections, with errors and misses, measure the tracker alone; the rendered
frames measure the whole pipeline.
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
"""Size of a frame, px."""

SEEN_SHARE = 0.5
"""Faces of which less is visible are not in the ground truth. The simulated detector finds some of them, from 0.35 on."""

_FACE_PX = 96
_BOX = np.array([0.1, 0.04, 0.9, 1.0])
"""Bounding box of a face in a FER2013 picture, as fractions of its side."""
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
"""Few, so that most people are dressed like another one."""
_GRID = np.stack(np.meshgrid(np.linspace(-1, 1, 25), np.linspace(-1, 1, 25)), axis=-1)
"""Points at which a (smooth) warp is computed, -1 to 1 across the head."""

_Pixels = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Person:
    """`face` float32 96 x 96 x 3 RGB, `clothes` float32 64 x 64 x 3, and the seed of the facial movements (`features`)."""

    face: NDArray[np.float32]
    clothes: NDArray[np.float32]
    features: int


@dataclasses.dataclass(frozen=True)
class Actor:
    """A person in a shot; later actors stand in front.

    `keys` N x 4 are key frames: time (s), centre x and y of the face, and its side (px), with linear interpolation. `yaw` and `roll`
    are the largest head rotations (radians). A hand covers the face in the intervals `hidden` (s).
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
        """Yaw and roll (radians), and the strength of the expression (-1 to 1)."""
        turns = np.sin(2 * np.pi * (time_s * np.array([0.31, 0.23, 0.52]) + np.array([2.0, 3.0, 5.0]) * self.phase))
        return self.yaw * float(turns[0]), self.roll * float(turns[1]), float(turns[2])


@dataclasses.dataclass(frozen=True)
class Shot:
    """A shot that ends at `end_s`. `light` multiplies red, green and blue; the camera pans by up to `pan` px."""

    end_s: float
    actors: tuple[Actor, ...]
    scenery: int
    light: tuple[float, float, float] = (1.0, 1.0, 1.0)
    pan: float = 20.0


@dataclasses.dataclass(frozen=True)
class Scene:
    """Consecutive shots at `fps` frames per second. `Actor.person` is an index into `people`."""

    kind: str
    people: tuple[Person, ...]
    shots: tuple[Shot, ...]
    fps: float
    seed: int

    @property
    def seconds(self) -> float:
        return self.shots[-1].end_s


@dataclasses.dataclass(frozen=True)
class RenderedFrame:
    """A frame with its ground truth (`ids` N, `boxes` float64 N x 4) and the simulated detections (`faces`)."""

    time_s: float
    pixels: _Pixels
    cut: bool
    ids: list[int]
    boxes: NDArray[np.float64]
    faces: Faces


def make_people(faces: NDArray[np.uint8], *, seed: int) -> tuple[Person, ...]:
    """One person for each face: uint8 N x 48 x 48 (grey) or N x 48 x 48 x 3 (RGB), framed as in FER2013."""
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


def render_frames(scene: Scene) -> Iterator[RenderedFrame]:
    """All frames of a scene, in order."""
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
        # Detection errors are correlated in time.
        memory = float(np.exp(-8 / scene.fps))
        drift = memory * drift + np.sqrt(1 - memory**2) * random.normal(0, 1, drift.shape)
        pixels, ids, boxes, points, visible = _draw(scene, scene.shots[now], scenery, time_s)
        faces = _detected(boxes, points, visible, drift, random)
        seen = visible >= SEEN_SHARE
        yield RenderedFrame(
            time_s, pixels, cut and index > 0, [who for who, there in zip(ids, seen, strict=True) if there], boxes[seen], faces
        )


def _detected(
    boxes: NDArray[np.float64],
    points: NDArray[np.float64],
    visible: NDArray[np.float64],
    drift: NDArray[np.float64],
    random: np.random.Generator,
) -> Faces:
    """Simulated detections: boxes with an IoU of about 0.9, landmarks 2 % off, and misses, mostly of half-hidden faces."""
    sides = boxes[:, 3:] - boxes[:, 1:2]
    noisy = boxes + sides * (0.02 * np.tile(drift[:, :2], 2) + 0.02 * drift[:, 2:6])
    marks = points + sides[:, None] * (0.008 * drift[:, None, 6:8] + random.normal(0, 0.012, points.shape))
    chance = np.interp(visible, [0.3, 0.35, 0.5, 0.7, 0.9], [0, 0.1, 0.5, 0.9, 0.995])
    found = random.uniform(size=len(boxes)) < chance
    scores = np.full(len(boxes), 0.99, np.float32)
    return Faces(noisy.astype(np.float32), marks.astype(np.float32), scores).subset(found).largest_first()


def _scenery(seed: int) -> _Pixels:
    """A background of coloured blurs and boxes, larger than a frame, so that the camera can pan."""
    random = np.random.default_rng(seed)
    size = (WIDTH + 400, HEIGHT + 100)
    base = random.integers(20, 235, (int(random.integers(3, 12)), int(random.integers(4, 20)), 3)).astype(np.uint8)
    wall = np.asarray(cv2.resize(base, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    for _ in range(12):
        (x, y), (w, h) = random.integers(0, size), random.integers(10, 150, 2)
        cv2.rectangle(wall, (int(x), int(y)), (int(x + w), int(y + h)), random.integers(0, 255, 3).tolist(), -1)
    return np.asarray((0.6 * wall + random.integers(0, 90)).clip(0, 255), np.uint8)


def _draw(
    scene: Scene, shot: Shot, scenery: _Pixels, time_s: float
) -> tuple[_Pixels, list[int], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The frame, and for each actor the person, box (N x 4), landmarks (N x 5 x 2) and visible fraction of the face (N)."""
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
    """Where the canvas and a patch at `corner` overlap: rows and columns of the canvas, then of the patch. None if they do not."""
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
    """Draws the head with its pose and expression, and returns the area of the whole head, px."""
    width = max(4, int(1.1 * side))
    turned = _GRID * 1.1 @ np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    inside = cv2.resize(turned.astype(np.float32), (width, width), interpolation=cv2.INTER_LINEAR)
    inside = (inside[..., 0] / 0.86) ** 2 + (inside[..., 1] / 1.04) ** 2 <= 1
    # The head is a rotating cylinder, and the expression warps the face a little.
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
        # Shading from one side.
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
