"""The model card of a weights file: measured, stored as JSON beside the file, and rendered from that JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from batchemo.atomic import write_text
from batchemo.emotion.weights import Weights, WeightsFile, read_weights_file
from batchemo.errors import DataError
from batchemo.options import RunOptions
from training.data.fer2013 import choose_split, clean_part, read_splits
from training.evaluate.measurement import measure_weights
from training.evaluate.quantization import compare_int8
from training.recipe import METHODS

CARD = "MODEL_CARD.md"

SPLIT = "PublicTest"

_TEMPLATE = "model_card.md"
_DIGITS = 5
_CONFUSED = 3
_UNKNOWN = dict.fromkeys(("recipe", "epochs", "seed", "start_sha256", "trained_on", "learned_from_votes", "average_of", *METHODS))
"""Figures that not all weights files have."""

_SAME_WITHIN = 1e-3
"""Largest difference of the accuracy of one file between two machines: a few predictions are ties."""


def measure_for_card(
    weights: Weights, data: Path, *, votes: Path | None, device: torch.device, report: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Figures of `measure_weights` on PublicTest with degradations, and those of `compare_int8` as `int8`, rounded to five digits.

    Raises DataError if `data` are not the data of the weights file's own figures, or lack the split Training, which defines the clean part.
    """
    splits = read_splits(data, votes=votes, faces_only=False)
    for split in (SPLIT, "Training"):
        choose_split(splits, split, data)
    figures: dict[str, Any] = _rounded(measure_weights(weights, splits, split=SPLIT, device=device, degraded=True, report=report))
    if figures["clean"] is None:
        raise DataError(f"{data}: all pictures of {SPLIT} have a copy in Training; a model card needs unseen ones")
    check_same_data(figures, weights.figures)
    clean = clean_part(splits[SPLIT], splits["Training"]).numpy()
    return figures | {"int8": _rounded(compare_int8(weights, splits[SPLIT], clean=clean))}


def check_same_data(figures: dict[str, Any], stored: dict[str, Any]) -> None:
    """Raises DataError if `figures` were measured on other pictures than the weights file's own figures (`stored`)."""
    stated, stated_for = stored.get("accuracy"), f"{stored.get('n')} pictures of {stored.get('split')}"
    if stated is None:
        raise DataError("the weights do not say what they reach; make them with: python -m training fit")
    if (figures["n"], figures["split"]) != (stored.get("n"), stored.get("split")) or abs(figures["accuracy"] - stated) > _SAME_WITHIN:
        raise DataError(
            f"the weights say that they reach {stated:.2%} of {stated_for}, and reach {figures['accuracy']:.2%} of the {figures['n']} of "
            f"{figures['split']} here; give the same pictures with --data"
        )


def write_card(weights: Path, figures: dict[str, Any]) -> Path:
    """Writes `MODEL_CARD.md` and its figures (JSON) beside `weights`; returns the path of the card."""
    card = weights.with_name(CARD)
    text = render_card(read_weights_file(weights), figures)
    write_text(figures_path(weights), json.dumps(figures, indent=1) + "\n")
    write_text(card, text)
    return card


def figures_path(weights: Path) -> Path:
    """The path of the card's figures (JSON)."""
    return weights.with_name(f"{weights.stem}.figures.json")


def render_card(file: WeightsFile, figures: dict[str, Any]) -> str:
    """The card in Markdown. Raises DataError if `figures` are of other weights."""
    if figures["weights_sha256"] != file.sha256:
        raise DataError(f"{file.path}: the figures are of other weights; write the card anew with: python -m training card")
    check_same_data(figures, file.figures)
    uncertain_below = RunOptions().uncertain_below
    environment = Environment(  # noqa: S701 (Markdown, not HTML)
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.globals |= {"percent": _percent, "share": _share, "three": _three, "count": _count, "millions": _millions}
    return environment.get_template(_TEMPLATE).render(
        name=file.path.stem,
        file=file,
        stored=_UNKNOWN | file.figures,
        figures={"ferplus": None, "degraded": None, "int8": None} | figures,
        default=next(point for point in figures["coverage"] if point["threshold"] == uncertain_below),
        confused=_most_confused(figures),
    )


def _most_confused(figures: dict[str, Any]) -> list[dict[str, Any]]:
    emotions = list(figures["per_class"])
    pairs = [
        {"label": label, "read_as": read_as, "count": count, "share": count / max(1, sum(counts))}
        for label, counts in zip(emotions, figures["confusion"], strict=True)
        for read_as, count in zip(emotions, counts, strict=True)
        if label != read_as
    ]
    return sorted(pairs, key=lambda pair: -pair["count"])[:_CONFUSED]


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return round(value, _DIGITS) if isinstance(value, float) else value


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _share(value: float, low: float, high: float) -> str:
    return f"{_percent(value)} ({_percent(low)} to {_percent(high)})"


def _three(value: float) -> str:
    return f"{value:.3f}"


def _count(value: int) -> str:
    return f"{value:,}"


def _millions(value: int) -> str:
    return f"{value / 1e6:.2f} million"
