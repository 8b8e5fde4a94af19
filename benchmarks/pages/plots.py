"""Plots of the result pages, in one style: SVG, black on white, distinguished by marker and line, not by colour alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator

MARKERS = "osD^vPX*<>"
LINES = ("-", "--", "-.", ":")
INKS = ("#000000", "#0b5394", "#b45309", "#4d7c0f", "#7c3aed", "#6b7280")
STYLE = {
    "font.size": 10,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "svg.hashsalt": "tokalign-lab",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "figure.facecolor": "white",
}
Point = float | tuple[float, float, float]  # a value, or value, low and high
Series = tuple[Sequence[float], Sequence[float]]


def dots(
    path: Path,
    names: Sequence[str],
    series: Mapping[str, Sequence[Point | None]],
    label: str,
    at: float | None = None,
    log: bool = False,
) -> None:
    """Draw a dot plot: one line per name, one marker per series; a point with three values has an interval."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            figsize=(7.2, 1.1 + 0.34 * len(names) + 0.5 * (len(series) > 1)), layout="constrained"
        )
        for place, (name, points) in enumerate(series.items()):
            ink, marker = INKS[place % len(INKS)], MARKERS[place]
            for row, point in enumerate(points):
                if point is None:
                    continue
                value, low, high = point if isinstance(point, tuple) else (point, point, point)
                shown = name if row == next(i for i, one in enumerate(points) if one is not None) else None
                at_row = row + 0.11 * (
                    place - (len(series) - 1) / 2
                )  # so that markers with the same value do not hide each other
                axes.plot([low, high], [at_row, at_row], color=ink, linewidth=1.2)
                style = {"markersize": 6, "markerfacecolor": _face(place, ink)}
                axes.plot(value, at_row, marker, color=ink, label=shown, **style)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel(label)
        if at is not None:
            axes.axvline(at, color="#000000", linewidth=0.8)
        if log:
            axes.set_xscale("log")
            _label(axes.xaxis)
        if len(series) > 1:
            figure.legend(loc="outside upper left", ncols=3, fontsize=9)
        _save(figure, path)


def lines(
    path: Path,
    series: Mapping[str, Series],
    x: str,
    y: str,
    levels: Mapping[str, float] | None = None,
    log: tuple[bool, bool] = (False, False),
) -> None:
    """Draw curves; `levels` are horizontal lines with a name, `log` makes axes logarithmic."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 4), layout="constrained")
        for place, (name, (xs, ys)) in enumerate(series.items()):
            ink = INKS[place % len(INKS)]
            style = {"marker": MARKERS[place], "markersize": 5, "markerfacecolor": _face(place, ink)}
            axes.plot(xs, ys, LINES[place % len(LINES)], color=ink, label=name, **style)
        for name, value in (levels or {}).items():
            axes.axhline(value, color="#6b7280", linewidth=1)
            axes.annotate(
                name, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", color="#444444"
            )
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        for wanted, axis, scale in zip(log, (axes.xaxis, axes.yaxis), (axes.set_xscale, axes.set_yscale), strict=True):
            if wanted:
                scale("log")
                _label(axis)
        figure.legend(loc="outside upper left", ncols=3, fontsize=9)
        _save(figure, path)


def points(
    path: Path,
    groups: Mapping[str, Sequence[tuple[float, float, str]]],
    x: str,
    y: str,
    fit: tuple[float, float] | None = None,
) -> None:
    """Draw a scatter plot of (x, y, name) by group; `fit` is slope and intercept of a line."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 4.4), layout="constrained")
        for place, (name, found) in enumerate(groups.items()):
            ink = INKS[place % len(INKS)]
            xs, ys = [one[0] for one in found], [one[1] for one in found]
            style = {"markersize": 6.5, "markerfacecolor": _face(place, ink)}
            axes.plot(xs, ys, MARKERS[place], color=ink, label=name, **style)
            for one in found:
                axes.annotate(one[2], one[:2], textcoords="offset points", xytext=(6, 4), fontsize=8.5, color="#333333")
        if fit is not None:
            low, high = axes.get_xlim()
            axes.plot([low, high], [fit[0] * low + fit[1], fit[0] * high + fit[1]], "--", color="#6b7280", linewidth=1)
            axes.set_xlim(low, high)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.margins(x=0.12, y=0.1)
        if len(groups) > 1:
            figure.legend(loc="outside upper left", ncols=3, fontsize=9)
        _save(figure, path)


def _face(place: int, ink: str) -> str:
    """Return white for every second kind of marker, to distinguish them without colour."""
    return "white" if place % 2 else ink


def _label(axis: Any) -> None:
    """Write plain numbers along a logarithmic axis, at 1, 2 and 5 of each decade."""
    axis.set_minor_locator(LogLocator(subs=(2, 5)))
    for formatter in (axis.set_major_formatter, axis.set_minor_formatter):
        formatter(FuncFormatter(_plain))


def _plain(value: float, _: object) -> str:
    return f"{value:,g}"


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
