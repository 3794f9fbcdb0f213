"""Makes the sample media and their ground truth: `python sample_media/make.py [--out DIR]`.

Needs the `dev` extra (`pip install -e '.[dev]'`): the photographs are in the scikit-image and matplotlib wheels.

A clip is a function from time to a scene: sprites placed by known similarity transforms, back to front. Pixels and
ground truth are both computed from the scene, so the truth depends on no detector.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import shutil
from collections.abc import Callable, Sequence
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]
Point = tuple[float, float]
Box = tuple[float, float, float, float]

TICKS_PER_SECOND = 90_000
SAMPLE_RATE = 48_000
DEMANDED_VISIBLE = 0.7
"""A face less visible than this need not be found: MTCNN loses faces between .3 and .6, depending on what is hidden."""

COLLINS_BOX: Box = (180.00, 60.74, 268.08, 173.99)
HOPPER_BOX: Box = (173.83, 112.05, 353.24, 337.93)
"""Faces as facenet-pytorch 2.5.3's MTCNN (min_face_size 40, keep_all) frames them, in pixels of the two photographs: the
mean over nine sizes of each, .6 to 1.4 and .3 to 1.0 times the original, because its framing wanders with size by 5 %."""

# fmt: off
COLLINS_OUTLINE = (
    (230, 17), (247, 19), (262, 24), (277, 31), (288, 41), (294, 55), (298, 66), (300, 80), (300, 90), (297, 101), (292, 112),
    (284, 122), (277, 131), (271, 136), (267, 140), (264, 150), (258, 160), (256, 170), (258, 176), (271, 184), (284, 197),
    (293, 209), (299, 222), (304, 234), (318, 243), (336, 258), (346, 276), (352, 290), (356, 310), (359, 330), (364, 345),
    (372, 347), (390, 344), (410, 344), (432, 350), (455, 364), (474, 385), (488, 410), (496, 440), (500, 470), (503, 511),
    (42, 511), (33, 500), (26, 480), (24, 460), (23, 440), (19, 400), (22, 380), (25, 360), (27, 340), (31, 333), (38, 305),
    (41, 295), (46, 280), (56, 262), (63, 250), (71, 240), (85, 232), (98, 222), (112, 208), (115, 203), (114, 188), (119, 186),
    (124, 178), (127, 173), (133, 166), (140, 160), (150, 154), (165, 150), (184, 148), (182, 140), (181, 131), (176, 130),
    (172, 125), (170, 118), (162, 111), (156, 102), (154, 92), (153, 80), (152, 70), (155, 60), (163, 50), (174, 42), (188, 36),
    (191, 31), (200, 23), (212, 20),
)
HOPPER_OUTLINE = (
    (226, 30), (240, 26), (255, 23), (272, 25), (287, 30), (299, 40), (311, 43), (326, 51), (338, 59), (347, 69), (353, 81),
    (354, 87), (362, 86), (367, 90), (370, 102), (371, 120), (372, 139), (371, 160), (369, 178), (373, 184), (376, 193),
    (376, 205), (373, 220), (370, 235), (367, 256), (361, 265), (361, 277), (356, 292), (347, 303), (338, 307), (332, 312),
    (341, 322), (359, 337), (400, 355), (425, 366), (458, 375), (480, 386), (490, 392), (497, 402), (502, 420), (511, 440),
    (511, 599), (12, 599), (15, 560), (22, 500), (26, 460), (29, 438), (34, 420), (39, 405), (47, 390), (57, 381), (65, 377),
    (85, 365), (100, 362), (120, 360), (135, 354), (150, 347), (168, 342), (182, 332), (190, 324), (198, 316), (203, 311),
    (202, 301), (195, 297), (180, 290), (167, 283), (161, 272), (162, 262), (163, 240), (162, 223), (157, 214), (154, 199),
    (155, 190), (153, 181), (150, 169), (149, 140), (152, 120), (156, 102), (163, 93), (175, 86), (177, 72), (184, 60),
    (195, 50), (207, 44), (217, 40),
)
# fmt: on


@dataclasses.dataclass(frozen=True)
class Sprite:
    """A picture that scenes are made of: `pixels` RGB H x W x 3.

    `alpha` float32 H x W x 1 is None for a backdrop. What lies inside `outline` (N x 2) hides what is behind. `face` is the
    box of `person`'s face.
    """

    pixels: Pixels
    alpha: NDArray[np.float32] | None = None
    outline: Points | None = None
    person: str = ""
    face: Box = (0, 0, 0, 0)

    @property
    def face_centre(self) -> Point:
        x1, y1, x2, y2 = self.face
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclasses.dataclass(frozen=True)
class Placed:
    """A sprite in a scene: its pixel (u, v) is shown at (scale * u + x, scale * v + y)."""

    sprite: Sprite
    scale: float
    x: float
    y: float

    @property
    def face(self) -> Box:
        x1, y1, x2, y2 = self.sprite.face
        return self.scale * x1 + self.x, self.scale * y1 + self.y, self.scale * x2 + self.x, self.scale * y2 + self.y


Scene = list[Placed]


@dataclasses.dataclass(frozen=True)
class Clip:
    """A video to write: `scene` by seconds, the `ticks` at which it is sampled, and its upright size in pixels.

    A `sideways` clip is stored turned a quarter, with the display matrix that phones write for upright videos.
    """

    name: str
    scene: Callable[[float], Scene]
    ticks: Sequence[int]
    width: int = 640
    height: int = 360
    cuts: Sequence[int] = ()
    sound: bool = False
    sideways: bool = False


def place(sprite: Sprite, *, anchor: Point, at: Point, scale: float) -> Placed:
    """Show the sprite's point `anchor` at the frame's point `at`."""
    return Placed(sprite, scale, at[0] - scale * anchor[0], at[1] - scale * anchor[1])


def place_face(sprite: Sprite, *, at: Point, scale: float) -> Placed:
    return place(sprite, anchor=sprite.face_centre, at=at, scale=scale)


# Sources


def package_picture(package: str, path: str) -> Path:
    return Path(str(files(package))) / path


COLLINS = package_picture("skimage", "data/astronaut.png")
HOPPER = package_picture("matplotlib", "mpl-data/sample_data/grace_hopper.jpg")


def read_rgb(path: Path) -> Pixels:
    pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise SystemExit(f"{path} is no picture; install its package again")
    return np.asarray(pixels, np.uint8)


def cut_out(pixels: Pixels, outline: Points) -> NDArray[np.float32]:
    """Alpha that falls to 0 within the outline, so that nothing of the old background shines through."""
    inside = cv2.fillPoly(np.zeros(pixels.shape[:2], np.float32), [np.rint(outline).astype(np.int32)], (1.0,))
    # Without the border, the blur would fade a figure out where the photograph ends.
    soft = cv2.GaussianBlur(inside, (0, 0), 1.6, borderType=cv2.BORDER_REPLICATE)
    return np.clip(2 * soft - 1, 0, 1).astype(np.float32)[..., None]


def collins() -> Sprite:
    pixels, outline = read_rgb(COLLINS), np.array(COLLINS_OUTLINE, np.float64)
    return Sprite(pixels, cut_out(pixels, outline), outline, "eileen_collins", COLLINS_BOX)


def hopper() -> Sprite:
    """At half the size of the photograph: warping it to half would alias."""
    pixels = np.asarray(cv2.resize(read_rgb(HOPPER), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
    x1, y1, x2, y2 = HOPPER_BOX
    outline = np.array(HOPPER_OUTLINE, np.float64) / 2
    return Sprite(pixels, cut_out(pixels, outline), outline, "grace_hopper", (x1 / 2, y1 / 2, x2 / 2, y2 / 2))


def collins_photograph() -> Sprite:
    return dataclasses.replace(collins(), alpha=None, outline=None)


def launch_pad() -> Sprite:
    """Out of focus, as behind people who stand in front of it."""
    return Sprite(np.asarray(cv2.GaussianBlur(read_rgb(package_picture("skimage", "data/rocket.jpg")), (0, 0), 2.0), np.uint8))


def brick_wall() -> Sprite:
    grey = np.rot90(read_rgb(package_picture("skimage", "data/brick.png"))).astype(np.float32) / 255
    dark, light = np.array((70, 40, 34), np.float32), np.array((246, 214, 190), np.float32)
    return Sprite(cv2.GaussianBlur(dark + (light - dark) * grey, (0, 0), 1.5).astype(np.uint8))


def stars() -> Sprite:
    """Brighter and bluer than the photograph, so that a dark uniform stands out."""
    sky = read_rgb(package_picture("skimage", "data/hubble_deep_field.jpg"))
    sky = np.asarray(cv2.resize(sky, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA), np.uint8)
    return Sprite((0.75 * sky + (26, 38, 64)).astype(np.uint8))


def pillar(*, width: int, height: int) -> Sprite:
    """A dark post close to the camera; its sides are soft, and its outline runs in the middle of the softness."""
    soft = 24
    across = np.linspace(0, 1, width)
    shade = 34 + 30 * np.sin(math.pi * across) ** 2
    pixels = np.repeat((shade[:, None] * (1.0, 0.92, 0.86))[None], height, axis=0)
    ramp = np.clip(np.minimum(np.arange(width), np.arange(width)[::-1]) / soft, 0, 1)
    alpha = np.repeat(ramp[None], height, axis=0).astype(np.float32)[..., None]
    left, right = soft / 2, width - soft / 2
    return Sprite(pixels.astype(np.uint8), alpha, np.array([(left, 0), (right, 0), (right, height), (left, height)], np.float64))


# Scenes


def eased(t: float, keys: Sequence[tuple[float, Sequence[float]]]) -> list[float]:
    """Values at time `t`, smoothly from one key (seconds, values) to the next, at rest before the first and after the last."""
    for (start, before), (end, after) in itertools.pairwise(keys):
        if t < end:
            u = min(max((t - start) / (end - start), 0.0), 1.0)
            share = u * u * (3 - 2 * u)
            return [a + (b - a) * share for a, b in zip(before, after, strict=True)]
    return list(keys[-1][1])


def sway(t: float, *, amplitude: float, period: float, phase: float = 0.0) -> float:
    return amplitude * math.sin(2 * math.pi * (t / period + phase))


def pan_and_zoom() -> Callable[[float], Scene]:
    """The camera closes in on Eileen Collins, a pillar passes, the camera turns to the model of the shuttle for a second and back."""
    photograph, post = collins_photograph(), pillar(width=200, height=360)
    # Seconds; x, y of the middle and width of what the camera sees, in pixels of the photograph.
    camera = [
        (0.0, (256, 144, 512)),
        (1.9, (232, 128, 420)),
        (2.5, (230, 126, 416)),
        (2.94, (394, 148, 236)),
        (3.6, (394, 96, 228)),
        (4.04, (236, 122, 408)),
        (6.0, (256, 144, 500)),
    ]

    def scene(t: float) -> Scene:
        x, y, width = eased(t, camera)
        picture = place(photograph, anchor=(x, y), at=(320, 180), scale=640 / width)
        return [picture, Placed(post, 1.0, 1300 * (t - 1.2) + 190, 0)]

    return scene


def two_people_and_a_cut(cut_s: float) -> Callable[[float], Scene]:
    """Two people walk past each other, Grace Hopper in front; after the cut each stands where the other was."""
    pad, wall, eileen, grace = launch_pad(), brick_wall(), collins(), hopper()

    def at_the_pad(t: float) -> Scene:
        (x,) = eased(t, [(0.5, (165,)), (2.5, (475,))])
        bob = sway(t, amplitude=4, period=0.8)
        return [
            Placed(pad, 1.0, 0, -60),
            place_face(eileen, at=(x + sway(t, amplitude=6, period=2.9), 132 + bob), scale=0.84),
            place_face(grace, at=(640 - x + sway(t, amplitude=6, period=2.3), 164 - bob), scale=1.06),
        ]

    def at_the_wall(t: float) -> Scene:
        nearer = 0.05 * t
        return [
            Placed(wall, 1.3, -12, -90),
            place_face(eileen, at=(172 + sway(t, amplitude=14, period=2.6), 136 + sway(t, amplitude=4, period=1.7)), scale=0.78 + nearer),
            place_face(grace, at=(462 - sway(t, amplitude=12, period=3.1), 170 + sway(t, amplitude=5, period=1.4)), scale=1.14 - nearer),
        ]

    return lambda t: at_the_pad(t) if t < cut_s else at_the_wall(t - cut_s)


def variable_rate() -> Callable[[float], Scene]:
    sky, grace = stars(), hopper()

    def scene(t: float) -> Scene:
        at = (320 + sway(t, amplitude=105, period=3.6), 176 + sway(t, amplitude=6, period=1.1))
        return [
            Placed(sky, 1.0, -30 - 3 * t, -120),
            place_face(grace, at=at, scale=1.1 + sway(t, amplitude=0.06, period=2.7)),
        ]

    return scene


def rotated() -> Callable[[float], Scene]:
    """An upright video from a hand-held phone."""
    photograph = collins_photograph()

    def scene(t: float) -> Scene:
        at = (176 + sway(t, amplitude=16, period=3.4), 172 + sway(t, amplitude=8, period=1.9, phase=0.2))
        return [place_face(photograph, at=at, scale=1.42 + sway(t, amplitude=0.04, period=4.2))]

    return scene


def even_ticks(*, fps: int, seconds: float) -> list[int]:
    return [index * TICKS_PER_SECOND // fps for index in range(round(fps * seconds))]


def uneven_ticks(*, seconds: float) -> list[int]:
    """Steps from 15 to 70 ms, none a multiple of a frame rate; the same ones on every machine."""
    ticks, step = [0], 0
    while ticks[-1] < seconds * TICKS_PER_SECOND:
        step = (step * 1103 + 2221) % 4951
        ticks.append(ticks[-1] + 1350 + step)
    return ticks


def clips() -> list[Clip]:
    cut = 96
    return [
        Clip("pan_and_zoom.mp4", pan_and_zoom(), even_ticks(fps=25, seconds=6), sound=True),
        Clip("two_people_and_a_cut.mp4", two_people_and_a_cut(cut / 30), even_ticks(fps=30, seconds=6), cuts=[cut]),
        Clip("variable_rate.mp4", variable_rate(), uneven_ticks(seconds=4)),
        Clip("rotated.mp4", rotated(), even_ticks(fps=25, seconds=3), width=360, height=640, sideways=True),
    ]


# Pixels and sound


def draw(scene: Scene, *, width: int, height: int) -> Pixels:
    """RGB height x width x 3."""
    canvas: NDArray[Any] = np.zeros((height, width, 3), np.uint8)
    for placed in scene:
        matrix = np.array([[placed.scale, 0, placed.x], [0, placed.scale, placed.y]])
        pixels = cv2.warpAffine(placed.sprite.pixels, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        if placed.sprite.alpha is None:
            canvas = pixels
            continue
        alpha = cv2.warpAffine(placed.sprite.alpha, matrix, (width, height), flags=cv2.INTER_LINEAR)[..., None]
        canvas = (canvas + (pixels.astype(np.float32) - canvas) * alpha).astype(np.uint8)
    return np.asarray(canvas, np.uint8)


def melody(seconds: float) -> NDArray[np.float32]:
    """Plucked tones of a pentatonic scale, two a second: 1 x samples in -1..1."""
    signal = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    for beat, semitones in enumerate((0, 4, 7, 9, 12, 9, 7, 4, 2, 7, 4, 0)):
        start = beat * SAMPLE_RATE // 2
        t = np.arange(len(signal) - start) / SAMPLE_RATE
        pitch = 261.63 * 2 ** (semitones / 12)
        tone = np.sin(2 * np.pi * pitch * t) + 0.3 * np.sin(4 * np.pi * pitch * t)
        signal[start:] += (0.2 * np.exp(-4 * t) * np.minimum(t / 0.01, 1) * tone).astype(np.float32)
    return signal[None]


def write_video(clip: Clip, path: Path) -> None:
    """H.264 in MP4, every frame at its tick."""
    stored = (clip.height, clip.width) if clip.sideways else (clip.width, clip.height)
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        # One thread: how x264 shares a picture among threads changes its bytes.
        stream = container.add_stream("libx264", rate=30, options={"crf": "22", "preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = *stored, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, TICKS_PER_SECOND)
        stream.codec_context.thread_count = 1
        if clip.sideways:
            stream.set_display_rotation(-90)
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono") if clip.sound else None
        for tick in clip.ticks:
            pixels = draw(clip.scene(tick / TICKS_PER_SECOND), width=clip.width, height=clip.height)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(pixels)) if clip.sideways else pixels)
            frame.pts, frame.time_base = tick, stream.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            audio = av.AudioFrame.from_ndarray(melody(clip.ticks[-1] / TICKS_PER_SECOND), format="fltp", layout="mono")
            audio.sample_rate, audio.pts, audio.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
            container.mux(sound.encode(audio))
            container.mux(sound.encode())


# Truth


def inside(points: Points, outline: Points) -> NDArray[np.bool_]:
    """Which of the points (N x 2) lie in the polygon (M x 2), by the even-odd rule."""
    x, y = points[:, :1], points[:, 1:]
    (x1, y1), (x2, y2) = outline.T, np.roll(outline, -1, axis=0).T
    crosses = (y1 > y) != (y2 > y)
    rise = np.where(y1 == y2, 1.0, y2 - y1)
    to_the_right = crosses & (x < (x2 - x1) * (y - y1) / rise + x1)
    return np.asarray(np.count_nonzero(to_the_right, axis=1) % 2 == 1)


def visible_share(scene: Scene, index: int, *, width: int, height: int) -> float:
    """Share of the face box of `scene[index]` that is within the picture and not behind a later sprite."""
    x1, y1, x2, y2 = scene[index].face
    steps = (np.arange(40) + 0.5) / 40
    points = np.stack(np.meshgrid(x1 + steps * (x2 - x1), y1 + steps * (y2 - y1)), axis=-1).reshape(-1, 2)
    seen = np.all((points >= 0) & (points < (width, height)), axis=1)
    for placed in scene[index + 1 :]:
        if placed.sprite.outline is not None:
            seen &= ~inside(points, placed.scale * placed.sprite.outline + (placed.x, placed.y))
    return float(seen.mean())


def faces_of(scene: Scene, *, width: int, height: int) -> list[dict[str, Any]]:
    faces = []
    for index, placed in enumerate(scene):
        if not placed.sprite.person:
            continue
        visible = round(visible_share(scene, index, width=width, height=height), 2)
        if visible > 0:
            box = [round(value, 2) for value in placed.face]
            faces.append({"person": placed.sprite.person, "box": box, "visible": visible})
    return sorted(faces, key=lambda face: str(face["person"]))


def gaps_of(frames: list[dict[str, Any]], cuts: Sequence[int]) -> list[dict[str, Any]]:
    """Intervals of a shot in which a person who is demanded before and after is not (see `DEMANDED_VISIBLE`)."""
    gaps = []
    bounds = [0, *cuts, len(frames)]
    for start, end in itertools.pairwise(bounds):
        seen: dict[str, int] = {}
        for index in range(start, end):
            for face in frames[index]["faces"]:
                if face["visible"] < DEMANDED_VISIBLE:
                    continue
                last = seen.get(face["person"], index - 1)
                if last < index - 1:
                    seconds = round(frames[index]["time_s"] - frames[last]["time_s"], 6)
                    gaps.append({"person": face["person"], "frames": [last + 1, index - 1], "seconds": seconds})
                seen[face["person"]] = index
    return gaps


def truth_of(clip: Clip) -> dict[str, Any]:
    frames = []
    for index, tick in enumerate(clip.ticks):
        faces = faces_of(clip.scene(tick / TICKS_PER_SECOND), width=clip.width, height=clip.height)
        frames.append({"index": index, "pts": tick, "time_s": round(tick / TICKS_PER_SECOND, 9), "faces": faces})
    return {
        "media": clip.name,
        "kind": "video",
        "width": clip.width,
        "height": clip.height,
        "n_frames": len(frames),
        "time_base": [1, TICKS_PER_SECOND],
        "sound": clip.sound,
        "cuts": list(clip.cuts),
        "gaps": gaps_of(frames, clip.cuts),
        "frames": frames,
    }


def truth_of_picture(name: str, sprite: Sprite, *, width: int, height: int) -> dict[str, Any]:
    faces = faces_of([Placed(sprite, 1.0, 0, 0)], width=width, height=height)
    frames = [{"index": 0, "pts": 0, "time_s": 0.0, "faces": faces}]
    head = {"media": name, "kind": "image", "width": width, "height": height, "n_frames": 1, "time_base": [1, 1]}
    return {**head, "sound": False, "cuts": [], "gaps": [], "frames": frames}


def write_truth(truth: dict[str, Any], folder: Path) -> None:
    """`<stem>.json`, one frame a line."""
    lines = ",\n".join(json.dumps(frame, separators=(",", ":")) for frame in truth["frames"])
    head = json.dumps({key: value for key, value in truth.items() if key != "frames"})
    path = (folder / truth["media"]).with_suffix(".json")
    path.write_text(f'{head[:-1]}, "frames": [\n{lines}\n]}}\n', encoding="utf-8")


def write_pictures(folder: Path) -> None:
    """Eileen Collins as JPEG, and the file of Grace Hopper as it is."""
    pixels = read_rgb(COLLINS)
    done, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    if not done:
        raise SystemExit("OpenCV cannot write JPEG here; reinstall it: pip install --force-reinstall opencv-python-headless")
    (folder / "eileen_collins.jpg").write_bytes(data.tobytes())
    shutil.copyfile(HOPPER, folder / "grace_hopper.jpg")
    full_size = Sprite(read_rgb(HOPPER), person="grace_hopper", face=HOPPER_BOX)
    for sprite in (collins_photograph(), full_size):
        height, width = sprite.pixels.shape[:2]
        write_truth(truth_of_picture(f"{sprite.person}.jpg", sprite, width=width, height=height), folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the sample media and the truth beside them.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR", help="default: beside this script")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    write_pictures(folder)
    for clip in clips():
        write_video(clip, folder / clip.name)
        write_truth(truth_of(clip), folder)


if __name__ == "__main__":
    main()
