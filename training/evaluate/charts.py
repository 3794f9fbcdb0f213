"""Draws charts: the confusion matrix and the risk-coverage curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from batchemo.atomic import replacing
from batchemo.records import EMOTIONS

_DARK_TEXT_BELOW = 0.55
_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#767676"


def write_charts(folder: Path, figures: dict[str, Any]) -> list[Path]:
    """Writes the charts of `figures` (of `measurement.measure`) as PNG into `folder`, and returns their paths."""
    title = f"{figures['split']}, {figures['n']:,} pictures"
    charts = {"confusion.png": confusion_chart(figures, title=title), "risk_coverage.png": risk_coverage_chart(figures, title=title)}
    paths = []
    for name, chart in charts.items():
        with replacing(folder / name) as temporary:
            chart.savefig(temporary, format="png", dpi=150)
        paths.append(folder / name)
    return paths


def confusion_chart(figures: dict[str, Any], *, title: str) -> Figure:
    """The confusion matrix: counts, coloured by their fraction of the row (the label)."""
    counts = np.array(figures["confusion"])
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    chart = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = chart.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "black" if shares[row, column] < _DARK_TEXT_BELOW else "white"
        text = f"{count}\n{shares[row, column]:.0%}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8.5)
    axes.set_xticks(range(len(EMOTIONS)), EMOTIONS, rotation=35, ha="right")
    axes.set_yticks(range(len(EMOTIONS)), EMOTIONS)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    axes.set_title(title)
    chart.colorbar(image, ax=axes, shrink=0.8, format=lambda share, _: f"{share:.0%}", label="fraction of the label")
    return chart


def risk_coverage_chart(figures: dict[str, Any], *, title: str) -> Figure:
    """Risk (share of wrong predictions) against coverage, with the point below which predictions are more likely wrong than right."""
    curve, uncertain = figures["risk_coverage"], figures["uncertain"]
    coverage, risk, thresholds = (np.array([point[key] for point in curve["curve"]]) for key in ("coverage", "risk", "threshold"))
    chart = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = chart.subplots()
    axes.plot(coverage, risk, color=_BLUE, linewidth=2)
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.9):
        at = int((thresholds >= threshold).sum()) - 1
        if at >= 0:
            axes.plot(coverage[at], risk[at], "o", color=_BLUE, markersize=4)
            axes.annotate(f"≥ {threshold:.1f}", (coverage[at], risk[at]), (6, -12), textcoords="offset points", color=_GREY, fontsize=8.5)
    at = int((thresholds >= uncertain["threshold"]).sum()) - 1
    if at >= 0:
        axes.axvline(coverage[at], color=_ORANGE, linestyle="--", linewidth=1.2)
        note = f"to the right more likely\nwrong than right:\nconfidence < {uncertain['threshold']:.2f}"
        axes.annotate(note, (coverage[at], 0), (-6, 8), textcoords="offset points", ha="right", color=_ORANGE, fontsize=8.5)
    axes.set(
        xlim=(0, 1),
        ylim=(0, None),
        xlabel="coverage: fraction of pictures kept, most confident first",
        ylabel="risk: fraction of wrong predictions",
    )
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_title(f"{title}; mean risk {curve['aurc']:.3f}")
    axes.spines[["top", "right"]].set_visible(False)
    return chart
