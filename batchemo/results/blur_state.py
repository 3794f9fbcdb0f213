"""Whether the faces of a whole results folder are hidden: a folder that is to be published stays so until somebody says otherwise."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import cast, get_args

from batchemo.atomic import write_text
from batchemo.results.catalog import read_catalog
from batchemo.options import RunOptions
from batchemo.options import BlurStyle

MARKER = ".blur.json"


@dataclasses.dataclass(frozen=True, slots=True)
class BlurState:
    """`faces`: they are hidden, by what `style` says."""

    faces: bool = False
    style: BlurStyle = "pixels"


def read_blur_state(results: Path) -> BlurState:
    """As the folder's marker says; of a folder of before there were any, what the styles of its copies and its last run say. A marker that
    cannot be read hides faces: shown by mistake, they cannot be taken back."""
    marked = _marked(results)
    return _without_marker(results) if marked is None else marked


def with_folder_blur(options: RunOptions, results: Path) -> RunOptions:
    """The options with faces hidden as they say, and where they do not say, as `results` has them."""
    known = read_blur_state(results)
    hidden = known.faces if options.blur_faces is None else options.blur_faces
    style = options.blur_style or (known.style if hidden else None)
    return options.model_copy(update={"blur_faces": hidden, "blur_style": style})


def write_blur_state(results: Path, options: RunOptions) -> None:
    """Marks the folder before anything is written to it, so that whatever comes of the run, the next one knows. `options` are those that
    `with_folder_blur` gives. Raises OSError."""
    wanted = BlurState(True, options.style().blur_style) if options.blur_faces else BlurState()
    if wanted != _marked(results):
        write_text(results / MARKER, json.dumps({"blur_faces": wanted.faces, "blur_style": wanted.style}) + "\n")


def _marked(results: Path) -> BlurState | None:
    try:
        facts = json.loads((results / MARKER).read_text(encoding="utf-8"))
        return BlurState(bool(facts["blur_faces"]), _style(facts["blur_style"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return BlurState(faces=True)


def _without_marker(results: Path) -> BlurState:
    styles = [entry.style for entry in read_catalog(results) if entry.style and entry.style.get("blur_faces")]
    if styles:
        return BlurState(True, _style(styles[0].get("blur_style")))
    return BlurState(faces=_last_run_hid(results))


def _last_run_hid(results: Path) -> bool:
    """Whether the last run was asked to; one without annotated copies leaves no style."""
    for path in sorted((results / "runs").glob("*/run.json"), reverse=True):
        try:
            return bool(json.loads(path.read_text(encoding="utf-8"))["options"]["blur_faces"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return False


def _style(name: object) -> BlurStyle:
    return cast("BlurStyle", name) if name in get_args(BlurStyle) else "pixels"
