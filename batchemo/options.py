"""Options of a run: merged once from flags, environment and files, checked, and frozen."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic_core import ErrorDetails

from batchemo.errors import UsageError, suggestion

ENVIRONMENT_PREFIX = "BATCHEMO_"
Codec = Literal["h264", "hevc", "av1", "vp9"]
Quality = Literal["low", "medium", "high"]
BlurStyle = Literal["pixels", "solid"]

DEFAULT_FILE = Path("batchemo.toml")

_LISTS = ("include", "exclude")
_PATTERNS = {"device": "must be auto, cpu, cuda or cuda:N", "scheduler": "must be like tcp://10.0.0.1:8786"}
_NOT_MERGED = ("config", "out", "results")


def _as_shard(given: Any) -> Any:
    return Shard.parse(given) if isinstance(given, str) else given


@dataclasses.dataclass(frozen=True, slots=True)
class Style:
    """`blur_faces`: nobody can be recognized, and `blur_style` covers the faces; `timeline`: a strip below videos. The rest is about the
    encoding of videos; `hardware`: by the machine's own encoder where there is one."""

    blur_faces: bool = False
    blur_style: BlurStyle = "pixels"
    timeline: bool = False
    codec: Codec = "h264"
    quality: Quality = "medium"
    hardware: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As it is stored: what covers faces is only part of a look that hides them."""
        found = dataclasses.asdict(self)
        return found if self.blur_faces else {name: value for name, value in found.items() if name != "blur_style"}


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` of `count`, from 1. Every medium is in exactly one of the `count` parts, told by its name alone."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(f"{self} must be part I of N, such as 2/8, with I from 1 to N")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Reads `I/N`. Raises ValueError that says how it is written."""
        parts = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
        if parts is None:
            raise ValueError("must be part I of N, such as 2/8")
        return cls(int(parts[1]), int(parts[2]))

    def holds(self, name: str) -> bool:
        """Whether the medium of that name is in this part. The same on every machine and with every version of Python."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8]) % self.count == self.index - 1


class RunOptions(BaseModel):
    """What `batchemo run` can be told; the help of each option stands in `batchemo run --help`.

    `blur_faces` and `blur_style` None: as the results folder is (see `batchemo.results.blur_state`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    follow_symlinks: bool = False
    decoder: Literal["auto", "decord", "pyav"] = "auto"
    sample_fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    min_face_px: Annotated[int, Field(ge=20, le=2000)] = 40
    detector: Literal["fast", "exact"] = "fast"
    appearance: bool = True
    weights: Path | None = None
    uncertain_below: Annotated[float, Field(ge=0, le=1)] = 0.5
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    workers: Annotated[int, Field(ge=1, le=1024)] | None = None
    engine: Literal["local", "dask"] = "local"
    scheduler: Annotated[str, Field(pattern=r"^(tcp|tls|ws|wss)://[^\s/]+:\d+$")] | None = None
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 64
    timeout: Annotated[float, Field(gt=0)] = 300.0
    max_memory: Annotated[int, Field(ge=256)] | None = None
    shard: Annotated[Shard, BeforeValidator(_as_shard), PlainSerializer(str)] | None = None
    annotate: bool = True
    blur_faces: bool | None = None
    blur_style: BlurStyle | None = None
    timeline: bool = False
    codec: Codec = "h264"
    quality: Quality = "medium"
    hardware: bool = False
    report: bool = True
    force: bool = False
    retry_failed: bool = False
    prune: bool = False
    wait: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    dry_run: bool = False

    def with_absolute_paths(self) -> RunOptions:
        """The same for processes with other working folders."""
        return self if self.weights is None else self.model_copy(update={"weights": self.weights.absolute()})

    def shaping(self) -> dict[str, Any]:
        """The options that shape the tables: where they change, a medium is analysed again."""
        return {name: getattr(self, name) for name in ("sample_fps", "min_face_px", "detector", "appearance", "uncertain_below")}

    @property
    def portrays(self) -> bool:
        """Whether thumbnails of faces are cut for the page."""
        return self.report and not self.blur_faces

    def style(self) -> Style:
        """How annotated copies look: where it changes, they are drawn again, and nothing is analysed again."""
        return Style(bool(self.blur_faces), self.blur_style or "pixels", self.timeline, self.codec, self.quality, self.hardware)


def merge_options(
    flags: Mapping[str, Any],
    *,
    environment: Mapping[str, str] = os.environ,
    config: Path | None = None,
    default_file: Path = DEFAULT_FILE,
) -> RunOptions:
    """Flag before environment before `config` before `./batchemo.toml` before default; None is "not given".

    Variables are called `BATCHEMO_<NAME>`, lists in them are separated by commas. Keys of the files are the options' names,
    with `-` or `_`. Raises UsageError naming the option, where it was given, and what it may be.
    """
    origins: dict[str, str] = {}
    values: dict[str, Any] = {}

    def add(found: Mapping[str, Any], origin: str) -> None:
        for name, value in found.items():
            if value is not None:
                values[name] = value
                origins[name] = origin

    if default_file.is_file():
        add(_read_file(default_file), str(default_file))
    config = config or (Path(environment[f"{ENVIRONMENT_PREFIX}CONFIG"]) if environment.get(f"{ENVIRONMENT_PREFIX}CONFIG") else None)
    if config is not None:
        add(_read_file(config), str(config))
    add(_read_environment(environment), "the environment")
    add(flags, "the command line")
    return validate_options(values, origins)


def validate_options(values: Mapping[str, Any], origins: Mapping[str, str]) -> RunOptions:
    """Raises UsageError naming the option, where it was given (`origins`), and what it may be."""
    try:
        return RunOptions.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        where = origins.get(name, "the options")
        given = values.get(name)
        told = f"{given:g}" if isinstance(given, float) else repr(given)
        raise UsageError(f"--{name.replace('_', '-')} {told} (from {where}): {_problem(first)}; see: batchemo run --help") from error


def _problem(error: ErrorDetails) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return _PATTERNS[str(error["loc"][0])] if error["type"] == "string_pattern_mismatch" else error["msg"].lower()


def _read_file(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot read the options ({error.strerror}); check --config") from error
    except ValueError as error:
        raise UsageError(f"{path}: not TOML ({error})") from error
    return named_options(table, file=path)


def named_options(table: Mapping[str, Any], *, file: Path) -> dict[str, Any]:
    """The options that a table of `file` gives. Raises UsageError, with the likely spelling, where one is unknown."""
    found = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in RunOptions.model_fields:
            raise UsageError(f"{file}: unknown option {key!r}; {suggestion(name, list(RunOptions.model_fields))}")
        # A path in a file is meant relative to that file.
        found[name] = file.parent / value if name == "weights" and isinstance(value, str) else value
    return found


def _read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable in environment:
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if variable.startswith(ENVIRONMENT_PREFIX) and name not in {*RunOptions.model_fields, *_NOT_MERGED}:
            raise UsageError(f"unknown variable {variable}; {suggestion(name, list(RunOptions.model_fields))}")
    for name in RunOptions.model_fields:
        text = environment.get(ENVIRONMENT_PREFIX + name.upper())
        if text:
            found[name] = text.split(",") if name in _LISTS else text
    return found
