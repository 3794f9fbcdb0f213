"""Stores whether a results folder is blurred: later runs blur it too, until one is asked not to."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import cast, get_args

from batchemo.atomic import write_text
from batchemo.options import BlurStyle, RunOptions
from batchemo.results.catalog import read_catalog

MARKER = ".blur.json"
"""Marker file in a results folder."""


@dataclasses.dataclass(frozen=True, slots=True)
class BlurState:
    """Whether `faces` are blurred, and in which `style`."""

    faces: bool = False
    style: BlurStyle = "pixels"


def read_blur_state(results: Path) -> BlurState:
    """The state of a folder by its marker file; of an older folder without one, by the styles of its copies and by its last run.

    A damaged marker counts as blurred: a face that is published by mistake cannot be taken back.
    """
    marked = _read_marker(results)
    return _guess(results) if marked is None else marked


def with_folder_blur(options: RunOptions, results: Path) -> RunOptions:
    """The options, with the folder's blur state where they leave `blur_faces` or `blur_style` open."""
    known = read_blur_state(results)
    blurred = known.faces if options.blur_faces is None else options.blur_faces
    style = options.blur_style or (known.style if blurred else None)
    return options.model_copy(update={"blur_faces": blurred, "blur_style": style})


def write_blur_state(results: Path, options: RunOptions) -> None:
    """Writes the marker, before anything else is written: the next run knows the state even if this one is killed.

    `options` come from `with_folder_blur`. Raises OSError.
    """
    wanted = BlurState(True, options.style().blur_style) if options.blur_faces else BlurState()
    if wanted != _read_marker(results):
        write_text(results / MARKER, json.dumps({"blur_faces": wanted.faces, "blur_style": wanted.style}) + "\n")


def _read_marker(results: Path) -> BlurState | None:
    try:
        facts = json.loads((results / MARKER).read_text(encoding="utf-8"))
        return BlurState(bool(facts["blur_faces"]), _style(facts["blur_style"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return BlurState(faces=True)


def _guess(results: Path) -> BlurState:
    styles = [medium.style for medium in read_catalog(results) if medium.style and medium.style.get("blur_faces")]
    if styles:
        return BlurState(True, _style(styles[0].get("blur_style")))
    return BlurState(faces=_last_run_blurred(results))


def _last_run_blurred(results: Path) -> bool:
    """Whether the last run was asked to blur; without annotated copies no style is stored."""
    for path in sorted((results / "runs").glob("*/run.json"), reverse=True):
        try:
            return bool(json.loads(path.read_text(encoding="utf-8"))["options"]["blur_faces"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return False


def _style(name: object) -> BlurStyle:
    return cast("BlurStyle", name) if name in get_args(BlurStyle) else "pixels"
