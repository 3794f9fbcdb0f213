"""The frames and times that the `ffmpeg` and `ffprobe` commands present of a clip."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import numpy as np

from checks.corpus.clips import CROP, EDITS, HEIGHT, WIDTH, Recipe, run_ffmpeg
from checks.corpus.drawn import Orientation, Picture

_TURNS: dict[Orientation, str] = {
    "upright": "null",
    "turn_right": "transpose=clock",
    "turn_over": "hflip,vflip",
    "turn_left": "transpose=cclock",
    "mirror": "hflip",
    "mirror_down": "vflip",
    "transpose": "transpose=cclock_flip",
    "transverse": "transpose=clock_flip",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Truth:
    """The presented frames, in order: `times` since the first one, `pictures` upright with square pixels."""

    times: tuple[Fraction, ...]
    pictures: tuple[Picture, ...]

    def __repr__(self) -> str:
        return f"Truth({len(self.times)} frames)"


def ask_ffmpeg(recipe: Recipe, path: Path) -> Truth:
    """Raises ClipError where a command fails, ValueError where ffmpeg and ffprobe count different frames."""
    stream = f"v:{_track(recipe)}"
    if recipe.edits != "none" and (recipe.codec == "av1" or len(EDITS[recipe.edits]) > 1):
        return _edited_here(recipe, path, stream)
    pictures = _pictures(recipe, path, stream)
    if recipe.container == "avi":
        # It gives frames no times, but a rate.
        return Truth(tuple(recipe.moment(index) for index in range(len(pictures))), pictures)
    times = _times(recipe, path, stream)
    if len(times) != len(pictures):
        raise ValueError(f"{path}: ffprobe counts {len(times)} frames, ffmpeg {len(pictures)}")
    return Truth(times, pictures)


def _edited_here(recipe: Recipe, path: Path, stream: str) -> Truth:
    """Applies the edit list to frames decoded without it: before FFmpeg 8, its AV1 decoder presents frames that edits cut, and after a
    second edit it presents wrong frames or none."""
    pictures = _pictures(recipe, path, stream, "-ignore_editlist", "1")
    presented = recipe.presented()
    return Truth(tuple(time for _, time in presented), tuple(pictures[number - recipe.first] for number, _ in presented))


def _track(recipe: Recipe) -> int:
    """Position of the wanted track among all video streams."""
    if recipe.tracks == "cover_first":
        return 1
    return int(recipe.tracks == "second_default")


def _times(recipe: Recipe, path: Path, stream: str) -> tuple[Fraction, ...]:
    shown = ("-select_streams", stream, "-show_entries", "frame=best_effort_timestamp:stream=time_base", "-of", "json", path)
    answer = json.loads(run_ffmpeg(*shown, program="ffprobe"))
    base = Fraction(answer["streams"][0]["time_base"])
    stamps = [frame.get("best_effort_timestamp") for frame in answer["frames"]]
    # A frame without a time, as some of MPEG-PS and MPEG-TS, follows at the rate of the stream.
    return tuple(recipe.moment(index) if stamp is None else (stamp - stamps[0]) * base for index, stamp in enumerate(stamps))


def _pictures(recipe: Recipe, path: Path, stream: str, *opening: str) -> tuple[Picture, ...]:
    wide, high = recipe.shown_size
    chain = [*_to_standard_range(recipe), *_geometry(recipe), "format=rgb24"]
    drawn: tuple[str | Path, ...] = (
        *opening,
        "-noautorotate",
        "-i",
        path,
        "-map",
        f"0:{stream}",
        "-vf",
        ",".join(chain),
        "-fps_mode",
        "passthrough",
        "-f",
        "rawvideo",
        "-",
    )
    raw = np.frombuffer(run_ffmpeg(*drawn), np.uint8)
    return tuple(raw.reshape(-1, high, wide, 3))


def _geometry(recipe: Recipe) -> list[str]:
    left, top, right, bottom = CROP
    crop = [f"crop={WIDTH - left - right}:{HEIGHT - top - bottom}:{left}:{top}:exact=1"] if recipe.crop == "container" else []
    wide, high = recipe.shown_size
    if recipe.change == "none":
        return [*crop, _TURNS[recipe.turn], f"scale={wide}:{high}:flags=bilinear+accurate_rnd+full_chroma_int", "setsar=1"]
    fit = f"scale={wide}:{high}:force_original_aspect_ratio=decrease:flags=area+accurate_rnd+full_chroma_int"
    return [_TURNS[recipe.turn], fit, "format=rgb24", f"pad={wide}:{high}:(ow-iw)/2:(oh-ih)/2", "setsar=1"]


def _to_standard_range(recipe: Recipe) -> list[str]:
    """Tone mapping that maps 100 nits to SDR white."""
    if recipe.colours not in ("pq", "hlg"):
        return []
    transfer = {"pq": "smpte2084", "hlg": "arib-std-b67"}[recipe.colours]
    linear = f"zscale=tin={transfer}:pin=bt2020:min=bt2020nc:rin=tv:t=linear:npl=100,format=gbrpf32le,zscale=p=bt709"
    return [linear, "tonemap=clip:desat=0", "zscale=t=bt709:m=bt709:r=full,format=gbrp"]
