"""Prints the results of commands as tables on stdout."""

from __future__ import annotations

import statistics
import sys
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from batchemo.records import EMOTIONS
from training.fit.sweep import MEASURED
from training.tracking.scoring import TrackingScore, summarise_scores

_SCORES = {
    "accuracy": "accuracy",
    "accuracy_low": "  95 % interval, from",
    "accuracy_high": "  to",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "nll": "negative log-likelihood",
    "brier": "Brier score",
    "ece": "expected calibration error",
}

_UNLIMITED = 100_000
_PER_CLASS = ("precision", "recall", "f1")


def print_evaluation(figures: dict[str, Any]) -> None:
    console = _console()
    flips = ", each with its mirror image" if figures["tta"] else ""
    console.print(f"{figures['split']}: {figures['n']} pictures{flips}; weights {figures['weights_sha256'][:16]}", highlight=False)
    tables = [_scores_table(figures), _classes_table(figures), _confusion_table(figures), _coverage_table(figures)]
    if figures.get("ferplus"):
        tables.append(_ferplus_table(figures["ferplus"]))
    if "degraded" in figures:
        tables.append(_degraded_table(figures["degraded"]))
    for table in tables:
        console.print()
        console.print(table)
    uncertain = figures["uncertain"]
    console.print(
        f"\nBelow a confidence of {uncertain['threshold']:.2f} (95 % interval {uncertain['threshold_low']:.2f} to "
        f"{uncertain['threshold_high']:.2f}) predictions are more likely wrong than right"
        f"{' (pictures unseen in training)' if figures['clean'] else ''}: a choice for batchemo's --uncertain-below.",
        highlight=False,
    )


def print_preparation(facts: dict[str, Any]) -> None:
    """Prints the statistics of `describe_splits`."""
    console = _console()
    splits = facts["splits"]
    counts = _table("pictures (as published)", *splits)
    for emotion in EMOTIONS:
        counts.add_row(emotion, *(_against(part["per_class"][emotion]) for part in splits.values()))
    counts.add_row("all", *(_against(part) for part in splits.values()))
    counts.add_row("mean of pixels", *(f"{part['mean']:.3f}" for part in splits.values()))
    counts.add_row("standard deviation", *(f"{part['std']:.3f}" for part in splits.values()))
    counts.add_row("of one grey", *(str(part["blank"]) for part in splits.values()))
    repeated = facts["duplicates"]
    counts.add_row("repeated within", *(str(repeated["within"][split]) for split in splits))
    tables = [counts]
    if any("votes" in part for part in splits.values()):
        tables.append(_votes_table(splits))
    for table in tables:
        console.print(table)
        console.print()
    pictures = f"{repeated['pictures']:,} pictures are in {repeated['groups']:,} groups of identical ones"
    console.print(f"{pictures}, {repeated['conflicting']:,} of the groups with labels that disagree.", highlight=False)
    for remark in facts["remarks"]:
        console.print(f"- {remark}", markup=False, highlight=False)


def print_trials(results: list[dict[str, Any]]) -> None:
    """Prints the results of a sweep, of which only differing hyperparameters."""
    varied = [key for key in results[0] if key not in {"trial", "error", *MEASURED}]
    telling = [key for key in varied if len({str(result[key]) for result in results}) > 1]
    table = _table("trial", "hyperparameters", "unseen", "all", "NLL", "seconds")
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    table.columns[1].justify = "left"
    for result in results:
        measured = [f"{result[key]:.4f}" if key in result else "failed" for key in ("accuracy_clean", "accuracy", "nll")]
        own = "\n".join(f"{key.split('.')[-1]} {result[key]}" for key in telling)
        table.add_row(result["trial"], escape(own), *measured, str(result["seconds"]))
    _console().print(table)


def print_tracking(scores: list[TrackingScore], embedding_ms: list[float], *, kinds: tuple[str, ...], returns: tuple[str, ...]) -> None:
    """Prints mean scores by scenario and tracker; `embedding_ms` are times of the embedding of a face."""
    console = _console()
    groups: dict[str, tuple[str, ...]] = {kind: (kind,) for kind in kinds}
    groups |= {"without cuts": tuple(kind for kind in kinds if kind not in returns), "cuts and returns": returns}
    table = Table("scenes", "tracker", *("IDF1", "HOTA", "switches/min", "tracks/person", "ms/frame"), box=SIMPLE_HEAD)
    for group, members in groups.items():
        for name in dict.fromkeys(each.tracker for each in scores):
            mean = summarise_scores([each for each in scores if each.tracker == name], members)
            cells = [f"{mean[key]:.3f}" for key in ("idf1", "hota")] + [
                f"{mean[key]:.2f}" for key in ("switches", "tracks", "milliseconds")
            ]
            table.add_row(group, name, *cells)
    console.print(table)
    if embedding_ms:
        console.print(f"embedding of a face: {statistics.median(embedding_ms):.2f} ms", highlight=False)


def _against(part: dict[str, Any]) -> str:
    return f"{part['n']:,}" + ("" if part["n"] == part["published"] else f" ({part['published']:,})")


def _votes_table(splits: dict[str, dict[str, Any]]) -> Table:
    table = _table("FER+", *splits)
    votes = [part.get("votes", {}) for part in splits.values()]
    table.add_row("annotators agree", *(_against({"n": part["majority"], "published": part["published"]}) for part in votes))
    table.add_row("  on contempt", *(str(part["contempt"]) for part in votes))
    for emotion in EMOTIONS:
        shares = [part["majority_is_label"].get(emotion) for part in votes]
        table.add_row(f"  of those labelled {emotion}, on that", *("" if share is None else f"{share:.0%}" for share in shares))
    return table


def _ferplus_table(figures: dict[str, Any]) -> Table:
    parts = {"FER+ majority": figures} | ({"unseen in training": figures["clean"]} if figures.get("clean") else {})
    table = _table("", *parts)
    table.add_row("pictures", *(str(part["n"]) for part in parts.values()))
    table.add_row("accuracy, contempt counted as wrong", *(f"{part['accuracy']:.4f}" for part in parts.values()))
    table.add_row("  95 % interval, from", *(f"{part['accuracy_low']:.4f}" for part in parts.values()))
    table.add_row("  to", *(f"{part['accuracy_high']:.4f}" for part in parts.values()))
    table.add_row("  pictures of contempt", *(str(part["n_contempt"]) for part in parts.values()))
    seven = [part["accuracy_seven"] for part in parts.values()]
    table.add_row("accuracy without those", *("" if accuracy is None else f"{accuracy:.4f}" for accuracy in seven))
    return table


def _degraded_table(degraded: dict[str, dict[str, Any]]) -> Table:
    unseen = degraded["mean"]["accuracy_clean"] is not None
    table = _table("degraded pictures", "accuracy", *(["unseen in training"] if unseen else []))
    for part in degraded.values():
        table.add_row(part["meaning"], f"{part['accuracy']:.4f}", *([f"{part['accuracy_clean']:.4f}"] if unseen else []))
    return table


def _scores_table(figures: dict[str, Any]) -> Table:
    parts = {"all": figures} | ({"unseen in training": figures["clean"]} if figures["clean"] else {})
    table = _table("", *parts)
    table.add_row("pictures", *(str(part["n"]) for part in parts.values()))
    for key, title in _SCORES.items():
        table.add_row(title, *(f"{part[key]:.4f}" for part in parts.values()))
    table.add_row("expected calibration error, cross-fitted", f"{figures['ece_cross_fitted']:.4f}")
    return table


def _classes_table(figures: dict[str, Any]) -> Table:
    table = _table("95 % intervals in brackets", "precision", "recall", "F1", "pictures")
    for emotion, values in figures["per_class"].items():
        cells = (f"{values[key]:.3f} ({values[f'{key}_interval'][0]:.2f}-{values[f'{key}_interval'][1]:.2f})" for key in _PER_CLASS)
        table.add_row(emotion, *cells, str(values["support"]))
    return table


def _confusion_table(figures: dict[str, Any]) -> Table:
    table = _table("label, predicted", *figures["per_class"])
    for emotion, counts in zip(figures["per_class"], figures["confusion"], strict=True):
        table.add_row(emotion, *map(str, counts))
    return table


def _coverage_table(figures: dict[str, Any]) -> Table:
    table = _table("confidence at least", "coverage", "accuracy")
    for point in figures["coverage"]:
        accuracy = "" if point["accuracy"] is None else f"{point['accuracy']:.4f}"
        table.add_row(f"{point['threshold']:.1f}", f"{point['coverage']:.4f}", accuracy)
    return table


def _console() -> Console:
    """Lines wrap only in a terminal, so that `grep` finds them whole elsewhere."""
    return Console(width=None if sys.stdout.isatty() else _UNLIMITED)


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
