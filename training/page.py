"""The web page of an exploration: one file, no network, all text escaped."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from batchemo.atomic import write_text
from batchemo.records import EMOTIONS
from training.exploration import Exploration
from training.saliency import PATCH_PX

_TEMPLATE = "explore.html"


def write_page(path: Path, exploration: Exploration) -> None:
    """Writes `path` anew."""
    write_text(path, render(exploration))


def render(exploration: Exploration) -> str:
    """The page as HTML."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    confusion = [
        {
            "label": label,
            "cells": [
                {"count": count, "share": count / max(1, sum(counts)), "read_as": other}
                for other, count in zip(EMOTIONS, counts, strict=True)
            ],
        }
        for label, counts in zip(EMOTIONS, exploration.figures["confusion"], strict=True)
    ]
    return environment.get_template(_TEMPLATE).render(found=exploration, confusion=confusion, emotions=EMOTIONS, patch_px=PATCH_PX)
