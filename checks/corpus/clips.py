"""Makes clips from recipes, which say how a clip is stored, and so what a player presents of it."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from checks.corpus.drawn import HIDDEN, MATRICES, Orientation, Picture, draw, show, store
from checks.corpus.packed import write_packed
from checks.corpus.patches import Edit, Matroska, Movie
from checks.corpus.streams import field_coded, hide, mux

WIDTH, HEIGHT = 160, 120
"""Size of a stored frame in px."""
FRAMES = 12
CROP = (8, 4, 16, 12)
"""Container crop, where there is one: left, top, right, bottom, in stored pixels."""
WANTED, OTHER, COVER = 1, 2, 3
"""Track numbers drawn into the pictures: the wanted track, another one, and a cover picture."""

_KEY = 5
_MP4 = ("mp4", "mov", "fmp4")

_X264 = ("libx264", "-preset", "veryfast", "-crf", "16")
_X265 = ("libx265", "-preset", "ultrafast", "-crf", "16")
CODECS: Mapping[str, tuple[str, ...]] = {
    "h264": (*_X264, "-bf", "2", "-x264-params", f"keyint={_KEY}:scenecut=0:b-adapt=0"),
    "h264_open": (*_X264, "-bf", "2", "-x264-params", f"keyint={_KEY}:scenecut=0:b-adapt=0:open-gop=1"),
    "h264_no_b": (*_X264, "-bf", "0", "-g", str(_KEY)),
    "h264_refresh": (*_X264, "-bf", "0", "-x264-params", f"keyint={_KEY}:intra-refresh=1:scenecut=0"),
    "h264_fields": (),
    "h264_mbaff": (*_X264, "-bf", "2", "-flags", "+ilme+ildct", "-x264-params", f"keyint={_KEY}:scenecut=0:b-adapt=0:tff=1"),
    "hevc": (*_X265, "-x265-params", f"log-level=none:pools=1:keyint={_KEY}:min-keyint={_KEY}:bframes=2:open-gop=0:scenecut=0"),
    "hevc_open": (*_X265, "-x265-params", f"log-level=none:pools=1:keyint={_KEY}:min-keyint={_KEY}:bframes=2:open-gop=1:scenecut=0"),
    "mpeg2": ("mpeg2video", "-q:v", "2", "-bf", "2", "-g", str(_KEY)),
    "mpeg2_fields": ("mpeg2video", "-q:v", "2", "-bf", "2", "-g", str(_KEY), "-flags", "+ilme+ildct", "-field_order", "tt"),
    "mpeg4": ("mpeg4", "-q:v", "2", "-bf", "2", "-g", str(_KEY)),
    "mpeg4_packed": ("mpeg4", "-q:v", "2", "-bf", "2", "-g", str(_KEY)),
    "vp8": ("libvpx", "-b:v", "1M", "-auto-alt-ref", "0", "-lag-in-frames", "0", "-g", "7", "-cpu-used", "4"),
    "vp9": ("libvpx-vp9", "-b:v", "1M", "-auto-alt-ref", "1", "-lag-in-frames", "10", "-g", "8", "-cpu-used", "6", "-row-mt", "0"),
    "av1": ("libaom-av1", "-crf", "20", "-b:v", "0", "-cpu-used", "8", "-g", "6", "-lag-in-frames", "10"),
    "mjpeg": ("mjpeg", "-q:v", "2"),
    "prores": ("prores_ks", "-profile:v", "1"),
}
_READY_MADE = frozenset({"h264_fields", "vp8"})
HIDDEN_PLACES = (2, 9)
"""Positions of the hidden frames in VP8 streams; their pictures carry the number of another track."""
CONTAINERS: Mapping[str, frozenset[str]] = {
    "mp4": frozenset("h264 h264_open h264_no_b h264_refresh h264_fields h264_mbaff hevc hevc_open mpeg2 mpeg4 vp9 av1".split()),
    "mov": frozenset("h264 h264_open h264_no_b h264_refresh h264_fields h264_mbaff hevc hevc_open mpeg2 mpeg4 mjpeg prores".split()),
    "fmp4": frozenset("h264 h264_open h264_no_b hevc hevc_open av1 vp9".split()),
    "mkv": frozenset(CODECS) - {"mpeg4_packed"},
    "webm": frozenset({"vp8", "vp9", "av1"}),
    "ts": frozenset("h264 h264_open h264_no_b h264_refresh h264_fields h264_mbaff hevc hevc_open mpeg2 mpeg2_fields mpeg4".split()),
    "mpg": frozenset({"mpeg2", "mpeg2_fields"}),
    "avi": frozenset("mpeg4 mpeg4_packed mjpeg h264_no_b".split()),
}

_ROLLS: Mapping[Orientation, tuple[float, float]] = {
    "turn_right": (-90, 0),
    "turn_over": (180, 0),
    "turn_left": (90, 0),
    "mirror": (0, 180),
    "mirror_down": (180, 180),
    "transpose": (90, 180),
    "transverse": (-90, 180),
}
"""Matroska's roll and yaw in degrees, as FFmpeg interprets them: mirrored where the yaw is 180, then rolled counterclockwise."""

_TURNED_SEI: Mapping[Orientation, str] = {
    "turn_right": "rotate=-90",
    "turn_over": "rotate=180",
    "turn_left": "rotate=90",
    "mirror": "flip=horizontal",
    "mirror_down": "flip=vertical",
    "transpose": "rotate=90:flip=horizontal",
    "transverse": "rotate=90:flip=vertical",
}
"""H.264's display orientation SEI, as FFmpeg's `h264_metadata` writes it: flipped, then rotated counterclockwise."""

EDITS: Mapping[str, tuple[tuple[int, int], ...]] = {
    "none": (),
    "one": ((3, 9),),
    "several": ((1, 4), (7, 11)),
    "repeated": ((2, 6), (2, 6)),
    "empty": ((-5, 0), (2, 9)),
    "empty_between": ((1, 4), (-3, 0), (6, 10)),
    "back": ((7, 11), (1, 4)),
}
"""First and exclusive last frame of each edit; a negative first frame is an empty edit of that many frames."""

_MATRICES = {"bt601": "smpte170m", "bt709": "bt709", "bt2020": "bt2020nc"}
_TRANSFERS = {"pq": "smpte2084", "hlg": "arib-std-b67"}
_TEN_BITS = frozenset({"hevc", "hevc_open", "av1", "vp9", "h264", "h264_open"})


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """One clip. `aspect` is the sample aspect ratio, `first` the number drawn into the first frame."""

    codec: str = "h264"
    container: str = "mp4"
    turn: Orientation = "upright"
    aspect: str = "1:1"
    crop: str = "none"
    edits: str = "none"
    rate: str = "25"
    tracks: str = "one"
    colours: str = "bt601"
    change: str = "none"
    first: int = 100
    frames: int = FRAMES

    def __str__(self) -> str:
        """The values that differ from the defaults."""
        plain = Recipe()
        named = [
            getattr(self, each.name) for each in dataclasses.fields(self) if each.name not in ("codec", "container", "first", "frames")
        ]
        said = [
            str(value).replace(":", "_") for value, usual in zip(named, dataclasses.astuple(plain)[2:-2], strict=True) if value != usual
        ]
        return "-".join([self.codec, self.container, *said])

    @property
    def pixel_aspect(self) -> Fraction:
        return Fraction(*map(int, self.aspect.split(":")))

    @property
    def cropped(self) -> tuple[int, int, int, int]:
        return CROP if self.crop == "container" else (0, 0, 0, 0)

    @property
    def square_size(self) -> tuple[int, int]:
        """Width and height in square pixels, after the crop and before the rotation."""
        left, top, right, bottom = self.cropped
        width, height = WIDTH - left - right, HEIGHT - top - bottom
        return round(width * max(Fraction(1), self.pixel_aspect)), round(height / min(Fraction(1), self.pixel_aspect))

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height of the presented picture."""
        width, height = self.square_size
        return (width, height) if self.turn in ("upright", "turn_over", "mirror", "mirror_down") else (height, width)

    def moment(self, index: int) -> Fraction:
        """Presentation time of frame `index` without edits, in seconds since the first frame."""
        if self.rate == "variable":
            return Fraction(index + 2 * (index // 3), 25)
        return index / (Fraction(24000, 1001) if self.rate == "film" else Fraction(25))

    def presented(self) -> list[tuple[int, Fraction]]:
        """Number and time of each presented frame, by what was drawn and how it was edited."""
        if self.edits == "none":
            return [(self.first + index, self.moment(index)) for index in range(self.frames)]
        found: list[tuple[int, Fraction]] = []
        begun = Fraction(0)
        for start, stop in EDITS[self.edits]:
            if start < 0:
                begun += self.moment(-start)
                continue
            found += [(self.first + index, begun + self.moment(index) - self.moment(start)) for index in range(start, stop)]
            begun += self.moment(stop) - self.moment(start)
        return [(number, time - found[0][1]) for number, time in found]


AXES: Mapping[str, tuple[str, ...]] = {
    "codec": tuple(CODECS),
    "container": tuple(CONTAINERS),
    "turn": ("upright", "turn_right", "turn_over", "turn_left", "mirror", "mirror_down", "transpose", "transverse"),
    "aspect": ("1:1", "4:3", "16:15", "10:11", "1:2"),
    "crop": ("none", "container"),
    "edits": tuple(EDITS),
    "rate": ("25", "film", "variable"),
    "tracks": ("one", "first_of_two", "unflagged", "second_default", "cover", "cover_first"),
    "colours": ("bt601", "bt709", "bt2020", "bt601_full", "bt709_full", "unsaid", "pq", "hlg"),
    "change": ("none", "turned", "larger"),
}


def makeable(recipe: Recipe) -> bool:
    """Whether the container supports all of the recipe, and FFmpeg's encoders can make it."""
    codec, container = recipe.codec, recipe.container
    boxed = container in _MP4
    return (
        codec in CONTAINERS[container]
        and (recipe.turn == "upright" or boxed or container == "mkv" or (container == "ts" and codec.startswith("h264")))
        and (recipe.aspect == "1:1" or _says_aspect(recipe))
        and (recipe.crop == "none" or container in ("mp4", "mov", "mkv", "webm"))
        and (recipe.edits == "none" or (container in ("mp4", "mov") and _may_edit(recipe)))
        and (recipe.rate == "25" or _says_times(recipe))
        and _holds_tracks(recipe)
        and _holds_colours(recipe)
        and (recipe.change == "none" or _may_change(recipe))
    )


def make(recipe: Recipe, folder: Path) -> Path:
    """Writes the clip into `folder`. Raises ClipError with the encoder's message where it cannot be made."""
    suffix = "mp4" if recipe.container == "fmp4" else recipe.container
    path = folder / f"{recipe}.{suffix}"
    if recipe.codec == "mpeg4_packed":
        raw = folder / f"{recipe}.raw"
        _encode(recipe, raw, range(recipe.frames), ("-f", "m4v"))
        write_packed(raw.read_bytes(), path, width=WIDTH, height=HEIGHT)
    elif recipe.change == "none":
        _encode(recipe, path, range(recipe.frames))
    else:
        _encode_changing(recipe, path, folder)
    if recipe.container in _MP4:
        _patch_movie(recipe, path)
    elif recipe.container in ("mkv", "webm"):
        _patch_matroska(recipe, path)
    return path


class ClipError(Exception):
    """The ffmpeg command failed."""


def run_ffmpeg(*arguments: str | Path, given: bytes = b"", program: str = "ffmpeg") -> bytes:
    """Returns what the command writes to stdout. Raises ClipError."""
    found = shutil.which(program)
    if found is None:
        raise ClipError(f"{program} is not installed: sudo apt-get install ffmpeg")
    quiet = ("-v", "error", *(("-nostdin", "-y", "-threads", "1") if program == "ffmpeg" and not given else ()))
    ended = subprocess.run([found, *quiet, *map(str, arguments)], input=given, capture_output=True, check=False)
    if ended.returncode:
        raise ClipError(f"{program} {' '.join(map(str, arguments))}: {ended.stderr.decode(errors='replace')[-2000:]}")
    return ended.stdout


def _says_aspect(recipe: Recipe) -> bool:
    if recipe.codec.startswith("mpeg2"):
        return recipe.aspect == "4:3" and recipe.crop == "none"
    return recipe.container in ("mp4", "mov", "fmp4", "mkv", "webm", "ts") or recipe.codec == "mpeg4"


def _says_times(recipe: Recipe) -> bool:
    if recipe.container in ("mpg", "avi") or recipe.codec.startswith("mpeg2") or recipe.codec == "mpeg4_packed":
        return recipe.rate == "film" and recipe.codec != "mpeg4_packed"
    return True


def _may_edit(recipe: Recipe) -> bool:
    # Streams of these are counted in milliseconds on their way, and edits no longer meet their frames.
    return not (recipe.codec in _READY_MADE and recipe.rate == "film")


def _holds_tracks(recipe: Recipe) -> bool:
    if recipe.tracks == "first_of_two":
        return recipe.container in ("mp4", "mov", "mkv", "webm", "ts")
    if recipe.tracks in ("unflagged", "second_default"):
        return recipe.container in ("mp4", "mov", "mkv", "webm")
    if recipe.tracks == "cover":
        return recipe.container in ("mp4", "mkv")
    return recipe.tracks == "one" or recipe.container == "mp4"


def _holds_colours(recipe: Recipe) -> bool:
    if recipe.colours in _TRANSFERS:
        return recipe.codec in _TEN_BITS and recipe.container in ("mp4", "mov", "fmp4", "mkv", "webm", "ts")
    if recipe.codec == "mjpeg":
        return recipe.colours == "bt601_full"
    if recipe.codec.startswith(("mpeg2", "mpeg4", "prores")):
        return recipe.colours in ("bt601", "unsaid") or (recipe.colours == "bt709" and not recipe.codec.startswith("mpeg4"))
    return not (recipe.codec in _READY_MADE and recipe.colours not in ("bt601", "unsaid"))


def _may_change(recipe: Recipe) -> bool:
    plain = recipe.edits == "none" and recipe.crop == "none" and recipe.tracks == "one" and recipe.rate == "25" and recipe.aspect == "1:1"
    streams = {"vp8": ("webm", "mkv"), "vp9": ("webm", "mkv"), "h264": ("ts", "mkv", "mp4"), "h264_no_b": ("ts", "mkv", "mp4")}
    return plain and recipe.colours not in _TRANSFERS and recipe.container in streams.get(recipe.codec, ())


def size_of(recipe: Recipe, index: int) -> tuple[int, int]:
    """Width and height of frame `index` as stored."""
    if recipe.change == "none" or index < recipe.frames // 2:
        return WIDTH, HEIGHT
    return (HEIGHT, WIDTH) if recipe.change == "turned" else (2 * WIDTH, HEIGHT + HEIGHT // 2)


def _stored(recipe: Recipe, indices: Iterable[int]) -> Iterator[Picture]:
    left, top, right, bottom = recipe.cropped
    for index in indices:
        width, height = size_of(recipe, index)
        square = recipe.square_size if (width, height) == (WIDTH, HEIGHT) else (width, height)
        upright = draw(recipe.first + index, *(square if recipe.shown_size == recipe.square_size else square[::-1]), track=WANTED)
        squeezed = cv2.resize(store(upright, recipe.turn), (width - left - right, height - top - bottom), interpolation=cv2.INTER_AREA)
        stored = np.full((height, width, 3), HIDDEN, np.uint8)
        stored[top : height - bottom, left : width - right] = squeezed
        yield stored


def _encode(recipe: Recipe, path: Path, indices: Sequence[int], extra: Sequence[str] = ()) -> None:
    """Runs one command: the wanted track comes through the pipe or from a prepared file, the other track or the cover from another file."""
    other, maps, position = _other_track(recipe, path)
    v = f":v:{position}"
    if recipe.codec in _READY_MADE:
        source: tuple[str | Path, ...] = ("-i", _ready_made(recipe, path, indices))
        wanted: tuple[str, ...] = (
            f"-c{v}",
            "copy",
            f"-aspect{v}",
            str(Fraction(*size_of(recipe, indices[0])) * recipe.pixel_aspect).replace("/", ":"),
        )
        given = b""
    else:
        pictures = list(_stored(recipe, indices))
        source, wanted, given = _by_pipe(recipe, pictures[0]), _encoding(recipe, v), b"".join(each.tobytes() for each in pictures)
    turned = recipe.turn != "upright" and recipe.container == "ts"
    bsf = (f"-bsf{v}", f"h264_metadata=display_orientation=insert:{_TURNED_SEI[recipe.turn]}") if turned else ()
    movie = {
        "mp4": ("-movie_timescale", "90000"),
        "mov": ("-movie_timescale", "90000"),
        "fmp4": ("-movflags", "frag_keyframe+empty_moov+default_base_moof+delay_moov", "-f", "mp4"),
    }.get(recipe.container, ())
    run_ffmpeg(
        "-y", "-threads", "1", *source, *other, *maps, *wanted, *bsf, *movie, "-bitexact", "-map_metadata", "-1", *extra, path, given=given
    )


def _by_pipe(recipe: Recipe, first: Picture) -> tuple[str, ...]:
    height, width = first.shape[:2]
    rate = "24000/1001" if recipe.rate == "film" else "25"
    return ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "-")


def _encoding(recipe: Recipe, v: str) -> tuple[str, ...]:
    """Options for the wanted track only; the other one is copied."""
    filters, said = _colours(recipe)
    moments = ("setpts='(N+2*floor(N/3))/25/TB'",) if recipe.rate == "variable" else ()
    chain = ",".join((*filters, *moments, f"setsar={recipe.aspect.replace(':', '/')}"))
    codec, *options = CODECS[recipe.codec]
    own = [option.removesuffix(":v") + v if option.startswith("-") else option for option in options]
    return (f"-filter{v}", chain, f"-fps_mode{v}", "passthrough", f"-c{v}", codec, *own, f"-threads{v}", "1", *said)


def _ready_made(recipe: Recipe, path: Path, indices: Sequence[int]) -> Path:
    """The wanted track in a file of its own, as a stream that no encoder writes."""
    ready = path.with_name(f"{path.stem}.ready.mkv")
    moments = [recipe.moment(index) - recipe.moment(indices[0]) for index in indices]
    pictures = list(_stored(recipe, indices))
    if recipe.codec == "h264_fields":
        template = path.with_name(f"{path.stem}.h264")
        packets = field_coded(pictures, moments, key_every=_KEY)
        template.write_bytes(b"".join(packet.content for packet in packets))
    else:
        template = path.with_name(f"{path.stem}.ivf")
        height, width = pictures[0].shape[:2]
        for place in HIDDEN_PLACES:
            if place < len(pictures):
                pictures.insert(place, np.asarray(cv2.resize(draw(999, 160, 120, track=OTHER), (width, height)), np.uint8))
        places = [place for place in HIDDEN_PLACES if place < len(pictures)]
        given = b"".join(picture.tobytes() for picture in pictures)
        run_ffmpeg("-y", *_by_pipe(recipe, pictures[0]), *_encoding(dataclasses.replace(recipe, rate="25"), ""), template, given=given)
        packets = hide(template.read_bytes(), places, moments)
    mux(template, packets, ready, last_s=Fraction(1, 25))
    return ready


def _other_track(recipe: Recipe, path: Path) -> tuple[tuple[str | Path, ...], tuple[str, ...], int]:
    """Inputs and maps of the other streams, and the position of the wanted track among the video tracks."""
    if recipe.tracks == "one":
        return (), (), 0
    if recipe.tracks.startswith("cover"):
        cover = path.with_name(f"{path.stem}.cover.png")
        picture = draw(999, 320, 320, track=COVER)
        cv2.imwrite(str(cover), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        if recipe.container == "mkv":
            return (), ("-attach", str(cover), "-metadata:s:t:0", "mimetype=image/png", "-metadata:s:t:0", "filename=cover.png"), 0
        return ("-i", cover), ("-map", "0", "-map", "1", "-c:v:1", "copy", "-disposition:v:1", "attached_pic"), 0
    other = path.with_name(f"{path.stem}.other.mkv")
    frames = b"".join(draw(index, 240, 180, track=OTHER).tobytes() for index in range(6))
    codec = (
        ("libvpx", "-b:v", "500k")
        if recipe.container == "webm"
        else ("mpeg2video",)
        if recipe.container == "ts"
        else ("mpeg4", "-q:v", "3")
    )
    rate = "25" if recipe.container == "ts" else "10"
    run_ffmpeg("-y", *"-f rawvideo -pix_fmt rgb24 -s 240x180 -r".split(), rate, "-i", "-", "-c:v", *codec, other, given=frames)
    if recipe.tracks == "second_default":
        return ("-i", other), ("-map", "1", "-map", "0", "-c:v:0", "copy"), 1
    return ("-i", other), ("-map", "0", "-map", "1", "-c:v:1", "copy"), 0


def _colours(recipe: Recipe) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Filters that convert RGB to the encoder's pixels, and options that declare the colours."""
    if recipe.colours in _TRANSFERS:
        transfer = _TRANSFERS[recipe.colours]
        # What stands in 8 bits is light up to 100 nits, SDR's white (ITU-R BT.2035).
        known = "scale=out_color_matrix=bt709:out_range=tv,format=yuv444p,setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709"
        linear = f"{known},zscale=tin=bt709:min=bt709:pin=bt709:t=linear,format=gbrpf32le"
        filters = (linear, f"zscale=p=bt2020:t={transfer}:m=bt2020nc:r=tv:npl=100,format=yuv420p10le")
        return filters, _said("bt2020nc", "bt2020", transfer, "tv")
    name, _, full = recipe.colours.partition("_")
    spread = "pc" if full else "tv"
    pixels = "yuv422p10le" if recipe.codec == "prores" else "yuvj420p" if recipe.codec == "mjpeg" else "yuv420p"
    if name == "unsaid":
        return ("scale=out_color_matrix=bt601:out_range=tv", f"format={pixels}"), ()
    primaries = "smpte170m" if name == "bt601" else "bt709"
    matrix = {"bt601": "bt601", "bt709": "bt709", "bt2020": "bt2020"}[name]
    filters = (f"scale=out_color_matrix={matrix}:out_range={spread}:flags=accurate_rnd+full_chroma_int+area", f"format={pixels}")
    return filters, _said(_MATRICES[name], primaries, "smpte170m" if name == "bt601" else "bt709", spread)


def _said(matrix: str, primaries: str, transfer: str, spread: str) -> tuple[str, ...]:
    return ("-colorspace", matrix, "-color_primaries", primaries, "-color_trc", transfer, "-color_range", spread)


def _encode_changing(recipe: Recipe, path: Path, folder: Path) -> None:
    """Two halves of different sizes, one after the other in one stream."""
    # Only MPEG-TS says within the stream how it is turned; what the other containers say is put there last.
    part = recipe if recipe.container == "ts" else dataclasses.replace(recipe, container="part")
    suffix = "webm" if recipe.codec in ("vp8", "vp9") else "ts"
    halves = []
    for number, indices in enumerate((range(recipe.frames // 2), range(recipe.frames // 2, recipe.frames))):
        half = folder / f"{path.stem}.{number}.{suffix}"
        # A second more, so that no half is moved because its times begin below 0.
        later = ("-output_ts_offset", str(1 + float(recipe.moment(indices[0])))) if suffix == "ts" else ()
        _encode(part, half, indices, later)
        halves.append(half)
    if suffix == "webm":
        names = path.with_suffix(".txt")
        names.write_text("".join(f"file '{half.absolute()}'\n" for half in halves))
        run_ffmpeg("-f", "concat", "-safe", "0", "-i", names, "-c", "copy", path)
        return
    joined = path if recipe.container == "ts" else folder / f"{path.stem}.joined.ts"
    joined.write_bytes(b"".join(half.read_bytes() for half in halves))
    if joined != path:
        # Annex B headers stay among the pictures, so that the second size is known when it comes.
        run_ffmpeg("-i", joined, "-c", "copy", path)


def _patch_movie(recipe: Recipe, path: Path) -> None:
    movie = Movie(path)
    track = int(recipe.tracks == "second_default")
    if recipe.turn != "upright":
        movie.set_matrix(MATRICES[recipe.turn], WIDTH, HEIGHT, track=track)
    if recipe.crop == "container":
        movie.set_clean_aperture(WIDTH, HEIGHT, CROP, track=track)
    if recipe.edits != "none":
        _edit(recipe, movie, track)
    flags = {"first_of_two": (True, True), "unflagged": (False, False), "second_default": (False, True)}
    if recipe.tracks in flags:
        movie.set_enabled(flags[recipe.tracks])
    if recipe.tracks == "cover_first":
        movie.put_metadata_first()
    movie.write()


def _edit(recipe: Recipe, movie: Movie, track: int) -> None:
    of_movie, of_track = movie.timescales(track=track)
    written = [edit.media_time for edit in movie.edits(track=track) if edit.media_time >= 0]
    zero = written[0] if written else 0
    edits = []
    for start, stop in EDITS[recipe.edits]:
        if start < 0:
            edits.append(Edit(round(recipe.moment(-start) * of_movie), -1))
        else:
            lasts = recipe.moment(stop) - recipe.moment(start)
            edits.append(Edit(round(lasts * of_movie), zero + round(recipe.moment(start) * of_track)))
    movie.set_edits(edits, track=track)


def _patch_matroska(recipe: Recipe, path: Path) -> None:
    matroska = Matroska(path)
    track = int(recipe.tracks == "second_default")
    if recipe.turn != "upright":
        roll, yaw = _ROLLS[recipe.turn]
        matroska.set_projection(roll=roll, yaw=yaw, track=track)
    if recipe.crop == "container":
        left, top, right, bottom = CROP
        matroska.set_crop(CROP, track=track)
        shown = (WIDTH - left - right) * recipe.pixel_aspect.numerator, (HEIGHT - top - bottom) * recipe.pixel_aspect.denominator
        matroska.set_display_size(*shown, track=track)
    flags = {"first_of_two": (True, True), "unflagged": (False, False), "second_default": (False, True)}
    if recipe.tracks in flags:
        matroska.set_default(flags[recipe.tracks])
    matroska.write()


def upright(recipe: Recipe, index: int) -> Picture:
    """What a player presents of frame `index`, without coding losses; letterboxed where its size differs from the first frame's."""
    width, height = size_of(recipe, index)
    wide, high = recipe.shown_size
    if (width, height) == (WIDTH, HEIGHT):
        return draw(recipe.first + index, wide, high, track=WANTED)
    picture = show(next(_stored(recipe, [index])), recipe.turn)
    scale = min(Fraction(wide, picture.shape[1]), Fraction(high, picture.shape[0]))
    inner = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    canvas = np.zeros((high, wide, 3), np.uint8)
    left, top = (wide - inner[0]) // 2, (high - inner[1]) // 2
    canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(picture, inner, interpolation=cv2.INTER_AREA)
    return canvas
