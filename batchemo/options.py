"""The options of a run: declared once, merged from flags, environment and files, checked, and frozen.

`RunOptions` is the one declaration: the command line of `batchemo run`, its help, the environment variables and the keys of TOML files are
made from it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic_core import ErrorDetails

from batchemo.errors import UsageError, suggestion

ENVIRONMENT_PREFIX = "BATCHEMO_"
Codec = Literal["h264", "hevc", "av1", "vp9"]
Quality = Literal["low", "medium", "high"]
BlurStyle = Literal["pixels", "solid"]
Panel = Literal["Input", "Analysis", "Execution", "Output", "Annotated copies", "Resuming", "Messages"]

DEFAULT_FILE = Path("batchemo.toml")

_OTHER_VARIABLES = ("config", "out", "results")
"""Variables that are no option of a run: read by the command line and by notebooks."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What the command line needs to know of an option besides its name, type, limits and default.

    - `panel`: the group in the help; `help`: what it does, without the default; `metavar`: a word for its value.
    - `default`: the default in words, where the value does not say it.
    - `negatable`: a switch that can be turned off by `--no-...`.
    - `pattern_hint`: what is said of a value that does not match the pattern of the field.
    - `shapes_tables`: media are analysed again where it changes.
    - `old_name`: an earlier name, which still works everywhere and stays the name in run.json.
    """

    panel: Panel
    help: str
    metavar: str | None = None
    default: str = ""
    negatable: bool = False
    pattern_hint: str = ""
    shapes_tables: bool = False
    old_name: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Style:
    """How annotated copies look. `blur_faces`: faces are covered as `blur_style` says; `timeline`: a strip below videos. The other options
    are those of the video encoder; `hardware`: a hardware encoder where there is one."""

    blur_faces: bool = False
    blur_style: BlurStyle = "pixels"
    timeline: bool = False
    codec: Codec = "h264"
    quality: Quality = "medium"
    hardware: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For JSON in results; `blur_style` is part of the style only where faces are blurred."""
        found = dataclasses.asdict(self)
        return found if self.blur_faces else {name: value for name, value in found.items() if name != "blur_style"}


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """Part `index`, from 1, of `count` parts. Each medium is in exactly one part, which follows from its name alone."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(f"{self} must be part I of N, such as 2/8, with I from 1 to N")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Reads `I/N`. Raises ValueError with an example."""
        parts = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
        if parts is None:
            raise ValueError("must be part I of N, such as 2/8")
        return cls(int(parts[1]), int(parts[2]))

    def holds(self, name: str) -> bool:
        """Whether the medium called `name` is in this part: the same on every machine and in every version of Python."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8]) % self.count == self.index - 1


def _parse_shard(given: Any) -> Any:
    return Shard.parse(given) if isinstance(given, str) else given


class RunOptions(BaseModel):
    """The options of `batchemo run`. An option that is None has the default that its `Option` names.

    `blur_faces` and `blur_style` None: as the results folder is (see `batchemo.results.blur_state`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    include: Annotated[tuple[str, ...], Option(panel="Input", help="Only media whose names match; may be repeated", metavar="PATTERN")] = ()
    exclude: Annotated[tuple[str, ...], Option(panel="Input", help="No media whose names match; may be repeated", metavar="PATTERN")] = ()
    follow_symlinks: Annotated[bool, Option(panel="Input", help="Follow symbolic links in folders")] = False
    decoder: Annotated[Literal["auto", "decord", "pyav"], Option(panel="Input", help="Video decoder")] = "auto"

    sample_fps: Annotated[
        float | None,
        Field(gt=0, le=1000),
        Option(panel="Analysis", help="Frames analysed per second", metavar="N", default="all frames", shapes_tables=True),
    ] = None
    min_face_px: Annotated[
        int, Field(ge=20, le=2000), Option(panel="Analysis", help="Smallest face searched for, in px", metavar="N", shapes_tables=True)
    ] = 40
    detector: Annotated[
        Literal["fast", "exact"],
        Option(panel="Analysis", help="fast, or exactly what MTCNN of facenet-pytorch finds", shapes_tables=True),
    ] = "fast"
    appearance: Annotated[
        bool,
        Option(panel="Analysis", help="Re-identify people by their appearance after cuts and gaps", negatable=True, shapes_tables=True),
    ] = True
    weights: Annotated[
        Path | None,
        Option(panel="Analysis", help="Weights of your own, as safetensors", metavar="FILE", default="the packaged ones"),
    ] = None
    uncertain_below: Annotated[
        float,
        Field(ge=0, le=1),
        Option(panel="Analysis", help="Confidence below which a face is marked uncertain", metavar="P", shapes_tables=True),
    ] = 0.5

    device: Annotated[
        str,
        Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$"),
        Option(panel="Execution", help="auto, cpu, cuda or cuda:N", metavar="NAME", pattern_hint="must be auto, cpu, cuda or cuda:N"),
    ] = "auto"
    workers: Annotated[
        int | None,
        Field(ge=1, le=1024),
        Option(panel="Execution", help="Worker processes on this machine", metavar="N", default="one per core or GPU"),
    ] = None
    engine: Annotated[
        Literal["local", "dask"], Option(panel="Execution", help="Processes on this machine, or the workers of a Dask cluster")
    ] = "local"
    scheduler: Annotated[
        str | None,
        Field(pattern=r"^(tcp|tls|ws|wss)://[^\s/]+:\d+$"),
        Option(
            panel="Execution",
            help="Address of Dask's scheduler, such as tcp://10.0.0.1:8786",
            metavar="ADDRESS",
            default="a cluster on this machine",
            pattern_hint="must be like tcp://10.0.0.1:8786",
        ),
    ] = None
    batch_size: Annotated[int, Field(ge=1, le=4096), Option(panel="Execution", help="Faces classified per batch", metavar="N")] = 64
    timeout_s: Annotated[
        float,
        Field(gt=0),
        Option(panel="Execution", help="Seconds without progress after which a medium fails", metavar="S", old_name="timeout"),
    ] = 300.0
    max_memory_mb: Annotated[
        int | None,
        Field(ge=256),
        Option(panel="Execution", help="Memory limit of a worker, in MB", metavar="MB", default="no limit", old_name="max_memory"),
    ] = None
    shard: Annotated[
        Annotated[Shard, BeforeValidator(_parse_shard), PlainSerializer(str)] | None,
        Option(
            panel="Execution",
            help="This machine's part of the media, where N machines share the folders: the I-th of N",
            metavar="I/N",
            default="all media",
        ),
    ] = None
    wait_s: Annotated[
        float,
        Field(ge=0, allow_inf_nan=False),
        Option(panel="Execution", help="Seconds to wait for another run on the same results folder", metavar="S", old_name="wait"),
    ] = 0.0

    annotate: Annotated[bool, Option(panel="Output", help="Write annotated copies", negatable=True)] = True
    report: Annotated[bool, Option(panel="Output", help="Write a web page of the results", negatable=True)] = True

    timeline: Annotated[
        bool, Option(panel="Annotated copies", help="Timeline strip below videos: who showed which emotion when", negatable=True)
    ] = False
    blur_faces: Annotated[
        bool | None,
        Option(
            panel="Annotated copies",
            help="Blur faces, on the page as well, and detect faces in the blurred copies again; exit 3 where a face may be left",
            default="as the results folder is, no-blur-faces in a new one",
            negatable=True,
        ),
    ] = None
    blur_style: Annotated[
        BlurStyle | None,
        Option(
            panel="Annotated copies",
            help="What covers faces: 4 x 4 pixels of their colours, or a solid grey",
            default="as the results folder is, pixels in a new one",
        ),
    ] = None
    codec: Annotated[Codec, Option(panel="Annotated copies", help="Video codec; every browser plays h264")] = "h264"
    quality: Annotated[Quality, Option(panel="Annotated copies", help="Video quality; higher makes larger files")] = "medium"
    hardware: Annotated[
        bool,
        Option(panel="Annotated copies", help="Encode videos on the GPU where that works; see: batchemo doctor", negatable=True),
    ] = False

    force: Annotated[bool, Option(panel="Resuming", help="Analyse media again that are done")] = False
    retry_failed: Annotated[bool, Option(panel="Resuming", help="Retry media that failed in an earlier run")] = False
    prune: Annotated[bool, Option(panel="Resuming", help="Remove the results of media that no longer exist")] = False
    dry_run: Annotated[bool, Option(panel="Resuming", help="Print what would be done, and do nothing")] = False

    def as_dict(self) -> dict[str, Any]:
        """For run.json: JSON values under stable names, which are the old ones of options that were renamed."""
        return {OPTIONS[name].old_name or name: value for name, value in self.model_dump(mode="json").items()}

    def with_absolute_paths(self) -> RunOptions:
        """The same options for processes with other working folders."""
        return self if self.weights is None else self.model_copy(update={"weights": self.weights.absolute()})

    def shaping(self) -> dict[str, Any]:
        """The options that shape the tables: where they change, a medium is analysed again."""
        return {name: getattr(self, name) for name, option in OPTIONS.items() if option.shapes_tables}

    @property
    def portrays(self) -> bool:
        """Whether thumbnails of faces are cropped for the page."""
        return self.report and not self.blur_faces

    def style(self) -> Style:
        """How annotated copies look: where it changes, they are rendered again, and nothing is analysed again."""
        return Style(bool(self.blur_faces), self.blur_style or "pixels", self.timeline, self.codec, self.quality, self.hardware)


def _declared(metadata: Iterable[Any]) -> Option:
    return next(each for each in metadata if isinstance(each, Option))


OPTIONS = {name: _declared(field.metadata) for name, field in RunOptions.model_fields.items()}
"""The declarations by the names of the options."""

_NAMES = {name: name for name in OPTIONS} | {option.old_name: name for name, option in OPTIONS.items() if option.old_name}
"""Today's name of an option by each name that is understood."""


def flag(name: str) -> str:
    """`min_face_px` as it is typed: `--min-face-px`."""
    return f"--{_dashed(name)}"


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def option_name(key: str) -> str | None:
    """Today's name of the option that `key`, with `-` or `_`, names today or named earlier; None where it names none."""
    return _NAMES.get(key.replace("-", "_"))


def merge_options(
    flags: Mapping[str, Any],
    *,
    environment: Mapping[str, str] = os.environ,
    config: Path | None = None,
    default_file: Path = DEFAULT_FILE,
) -> RunOptions:
    """Merges the sources: flags before environment before `config` before `./batchemo.toml` before defaults. None means "not given".

    Variables are called `BATCHEMO_<NAME>`; lists in them are separated by commas. Keys of files are names of options, with `-` or `_`.
    Earlier names are understood everywhere. Raises UsageError naming the option, where it was given, and what it may be.
    """
    config = config or (Path(environment[f"{ENVIRONMENT_PREFIX}CONFIG"]) if environment.get(f"{ENVIRONMENT_PREFIX}CONFIG") else None)
    sources: list[tuple[str, Mapping[str, Any]]] = [(str(file), _read_file(file)) for file in _files(default_file, config)]
    sources.append(("the environment", _read_environment(environment)))
    sources.append(("the command line", _by_name(flags, spelled=flag)))
    values = {name: value for _, found in sources for name, value in found.items()}
    return validate_options(values, {name: source for source, found in sources for name in found})


def _files(default_file: Path, config: Path | None) -> Iterable[Path]:
    if default_file.is_file():
        yield default_file
    if config is not None:
        yield config


def _by_name(given: Mapping[str, Any], *, spelled: Callable[[str], str], source: str = "") -> dict[str, Any]:
    """Values by today's names of the options. Raises UsageError where two spellings of one option have different values."""
    found: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for key, value in given.items():
        name = option_name(key) or key
        if value is None:
            continue
        if name in found and found[name] != value:
            first, second = spelled(keys[name]), spelled(key)
            raise UsageError(f"{source}{first} {found[name]} and {second} {value} are the same option; give {spelled(name)} alone")
        found[name], keys[name] = value, key
    return found


def validate_options(values: Mapping[str, Any], origins: Mapping[str, str]) -> RunOptions:
    """Raises UsageError naming the option, where it was given (`origins`), and what it may be."""
    try:
        return RunOptions.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        given = values.get(name)
        shown = f"{given:g}" if isinstance(given, float) else repr(given)
        where = origins.get(name, "the options")
        raise UsageError(f"{flag(name)} {shown} (from {where}): {_problem(first)}; see: batchemo run --help") from error


def _problem(error: ErrorDetails) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return OPTIONS[str(error["loc"][0])].pattern_hint if error["type"] == "string_pattern_mismatch" else error["msg"].lower()


def _read_file(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot read the options ({error.strerror}); check --config") from error
    except ValueError as error:
        raise UsageError(f"{path}: not TOML ({error}); correct it, or give another file with --config") from error
    return named_options(table, file=path)


def named_options(table: Mapping[str, Any], *, file: Path) -> dict[str, Any]:
    """The options in a table of `file`, by today's names. Raises UsageError, with the likely spelling, where one is unknown."""
    for key in table:
        if option_name(key) is None:
            hint = suggestion(key.replace("-", "_"), list(OPTIONS), spelled=_dashed if "-" in key else str)
            raise UsageError(f"{file}: unknown option {key!r}; {hint}")
    found = _by_name(table, spelled=str, source=f"{file}: ")
    if isinstance(found.get("weights"), str):  # a path in a file is relative to that file
        found["weights"] = file.parent / found["weights"]
    return found


def _read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, text in environment.items():
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if not variable.startswith(ENVIRONMENT_PREFIX) or name in _OTHER_VARIABLES:
            continue
        if name not in _NAMES:
            raise UsageError(f"unknown variable {variable}; {suggestion(name, list(OPTIONS), spelled=_variable)}")
        if text:
            found[name] = text.split(",") if isinstance(RunOptions.model_fields[_NAMES[name]].default, tuple) else text
    return _by_name(found, spelled=_variable)


def _variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()
