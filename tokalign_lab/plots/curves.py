"""The learning curves of tuning runs: one figure of three plots, which is updated in place.

From left to right: bits per byte of held-out text with the source model as reference and, if there is one, the
control; the share of the gap to the reference that is closed; one value of each step, tokens per second by default.
Each run has an index in the figure, with a separate colour, dash and marker. Raw values are faint, smoothed ones
strong, and measurements have markers. A line is thinned to the resolution of a plot before it is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from tokalign_lab.plots.theme import template, titles_left
from tokalign_lab.runs.folding import ALL_TEXT, RunView

VALUES = {
    "loss": "Training loss (nats per token)",
    "next_token": "Loss of the next token alone (nats per token)",
    "divergence": "Divergence from the teacher (nats per token)",
    "learning_rate": "Learning rate",
    "grad_norm": "Gradient norm, before clipping",
    "tokens_per_second": "Tokens per second",
    "bytes_per_second": "Bytes of text per second",
    "memory": "Memory (GB)",
}
AXES = {"step": "step", "tokens": "tokens read", "minutes": "minutes of work"}
EXACT = ("learning_rate", "memory")  # not noisy, so not smoothed
_UNITS = {"memory": 1e9}  # bytes per GB
MOST_RUNS = 6
MOST_CURVE_POINTS = 1000  # a plot is about 600 pixels wide
CURVE_HEIGHT = 320
# Distinct with colour-vision deficiency; contrast of at least 3 to 1 on white and on JupyterLab's black. Dashes and
# markers repeat the information.
COLOURS = ("#3a8fd0", "#c9770d", "#159a74", "#a377d1", "#dd5a50", "#8a8f1a")
DASHES = ("solid", "dash", "dashdot", "longdash", "dot", "longdashdot")
MARKS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
MARK_WORDS = ("circles", "squares", "diamonds", "triangles", "crosses", "slanted crosses")
LINE_WORDS = ("an unbroken line", "dashes", "dashes and dots", "long dashes", "dots", "long dashes and dots")
REFERENCE = "reference: source model, own tokenizer"
REFERENCE_COLOUR = "#7d868f"
_TINTS = ("rgba(58,143,208,0.10)", "rgba(26,163,125,0.10)", "rgba(163,119,209,0.10)")
_PER_RUN = 4  # traces: raw, smoothed, measured, gap; after those of all runs come the control and the reference
_AXES_OF = ("", "2", "3")


@dataclass(frozen=True)
class CurveOptions:
    """Display options of the curves.

    Attributes
    ----------
    value : a name of `VALUES`, drawn in the last plot
    axis : a name of `AXES`
    smoothing : weight of earlier values, 0 (none) to 0.99
    part : slice of the held-out text in the other two plots; "" for all of it
    """

    value: str = "tokens_per_second"
    axis: str = "step"
    smoothing: float = 0.8
    part: str = ALL_TEXT


def curves_figure(
    runs: Sequence[RunView], options: CurveOptions | None = None, theme: str = "light", places: int = 0
) -> go.Figure:
    """Make the figure of some runs.

    Traces 4i to 4i + 3 belong to the run with index i (raw, smoothed, measured, gap). The last two traces are the
    control and the reference.

    Parameters
    ----------
    options : by default over steps, smoothed by `fitting_smoothing`
    places : number of runs that the figure can show; by default the number of `runs`
    """
    options = options or CurveOptions(smoothing=fitting_smoothing(runs[0].total_steps if runs else 0))
    figure = make_subplots(rows=1, cols=3, horizontal_spacing=0.07, subplot_titles=["bits", "gap", "value"])
    hover = "%{fullData.name}: %{y:.5g} at %{x:,.6~g}<extra></extra>"
    for place in range(max(places, len(runs), 1)):
        line = {"color": COLOURS[place % MOST_RUNS], "dash": DASHES[place % MOST_RUNS]}
        same = {"legendgroup": f"run{place}", "hovertemplate": hover, "visible": False}
        raw = {"width": 1, "color": line["color"]}
        marks = {"symbol": MARKS[place % MOST_RUNS], "size": 8}
        strong = line | {"width": 2.5}
        traces = (
            (go.Scatter(mode="lines", line=raw, showlegend=False, **same), 3),
            (go.Scatter(mode="lines", line=strong, showlegend=False, zorder=1, **same), 3),  # over all raw ones
            (go.Scatter(mode="lines+markers", line=strong, marker=marks, showlegend=True, **same), 1),
            (go.Scatter(mode="lines+markers", line=strong, marker=marks, showlegend=False, **same), 2),
        )
        for trace, column in traces:
            figure.add_trace(trace, row=1, col=column)
    for name, dash in (("control: source tuned on the same text", "8px,4px"), (REFERENCE, "2px,5px")):
        grey = {"color": REFERENCE_COLOUR, "dash": dash, "width": 2}
        figure.add_trace(go.Scatter(name=name, mode="lines", line=grey, hovertemplate=hover), row=1, col=1)
    titles_left(figure, 13)
    figure.update_yaxes(autorange=True, range=[0, 1])  # the range is for a plot without a curve
    figure.update_layout(yaxis2={"tickformat": ".0%"})
    figure.update_layout(
        template=template(theme), height=CURVE_HEIGHT, margin={"l": 8, "r": 8, "t": 36, "b": 8}, autosize=True,
        hovermode="closest", legend={"orientation": "h", "y": -0.32},
    )  # fmt: skip
    update_curves(figure, dict(enumerate(runs)), options)
    return figure


def update_curves(
    figure: go.Figure, runs: Mapping[int, RunView], options: CurveOptions, changed: Iterable[int] | None = None
) -> None:
    """Draw the runs' curves, and stages, reference and control of the first run, in a figure of `curves_figure`.

    Parameters
    ----------
    runs : index in the figure, which decides the colour, -> run
    changed : indices of the runs with new values; all by default
    """
    for place in runs if changed is None else changed:
        _draw_run(_traces(figure, place), runs[place], options)
    if changed is None:
        for place in range(len(figure.data) // _PER_RUN):
            traces = _traces(figure, place)
            traces[0].opacity = 0.4 if len(runs) == 1 else 0.2
            for trace in traces if place not in runs else ():
                trace.update(visible=False, x=[], y=[])
    first = next(iter(runs.values()), RunView())
    reference = first.references.get(options.part)
    ends = [] if reference is None else [0.0, _axis_end(runs.values(), options.axis)]
    line = _points(np.array(ends), np.repeat(reference or 0.0, len(ends)))
    figure.data[-1].update(line, visible=reference is not None)
    control = first.control
    drawn = (
        (np.zeros(0), np.zeros(0))
        if control is None
        else _measured(control, options, control.measured.column(options.part))
    )
    figure.data[-2].update(_points(*drawn), visible=control is not None)
    part = "" if options.part == ALL_TEXT else f", {escape(options.part)}"
    titles = (f"Bits per byte, held-out text{part}", "Gap closed (100 %: reference)", VALUES[options.value])
    for note, text in zip(figure.layout.annotations, titles, strict=False):
        note.text = text
    shapes, notes = _stage_bands(first, options.axis)
    figure.layout.shapes = shapes
    figure.layout.annotations = (*figure.layout.annotations[:3], *notes)
    figure.layout.uirevision = f"{options.axis} {options.value} {options.part}"  # a zoom stays until the axes change
    _axes(figure, runs.values(), options)


def _traces(figure: go.Figure, place: int) -> Sequence[Any]:
    return figure.data[_PER_RUN * place : _PER_RUN * (place + 1)]


def _measured(run: RunView, options: CurveOptions, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the X values and values of the measurements that are finite."""
    at = run.x_of(options.axis, run.measured.steps)
    there = np.isfinite(at) & np.isfinite(values)
    return at[there], values[there]


def trained_curve(run: RunView, options: CurveOptions) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return steps, X values, values and smoothed values of the points that are finite, float64 (n,) each."""
    x, y = run.x(options.axis), run.trained.column(options.value) / _UNITS.get(options.value, 1)
    there = np.isfinite(x) & np.isfinite(y)
    smooth = y[there] if options.value in EXACT else smoothed(y[there], options.smoothing)
    return run.x("step")[there], x[there], y[there], smooth


def _draw_run(traces: Sequence[Any], run: RunView, options: CurveOptions) -> None:
    _, x, y, smooth = trained_curve(run, options)
    bits, gap = (
        _measured(run, options, one) for one in (run.measured.column(options.part), run.gap_closed(options.part))
    )
    for trace, drawn in zip(traces, ((x, y), (x, smooth), bits, gap), strict=True):
        trace.update(_points(*thinned(*drawn)), name=escape(run.name), visible=True)


def _points(x: np.ndarray, y: np.ndarray) -> dict[str, list[float]]:
    """Return points as plain lists, rounded to visible digits, to keep messages small."""
    return {"x": [float(f"{v:.7g}") for v in x], "y": [float(f"{v:.5g}") for v in y]}


def _axis_end(runs: Iterable[RunView], axis: str) -> float:
    """Return the end of the X axis: the last planned step; for minutes, the end of the longest run so far."""
    ends = [1.0] if axis == "step" else [0.0]
    for run in runs:
        last = max([run.total_steps if axis != "minutes" else 0, *run.steps[-1:], *run.measured.steps[-1:]])
        ends += [float(v) for v in run.x_of(axis, [last]) if np.isfinite(v)]
    return max(ends)


def _axes(figure: go.Figure, runs: Iterable[RunView], options: CurveOptions) -> None:
    known = _axis_end(runs, options.axis)
    reach = known or 1.0  # nothing to draw yet
    for which in _AXES_OF:
        # For minutes the end is unknown: plotly's autorange follows the curve, and a new point does not undo a zoom. A
        # plot without a curve would get the range -1 to 6.
        drawn = any(trace.visible and trace.xaxis == f"x{which}" and len(trace.x or ()) for trace in figure.data)
        follows = options.axis == "minutes" and known and drawn
        ends = {"autorange": True, "range": None} if follows else {
            "autorange": False, "range": [-0.02 * reach, 1.02 * reach],
        }  # fmt: skip
        figure.layout[f"xaxis{which}"].update(title={"text": AXES[options.axis], "standoff": 4}, **ends)
    figure.update_yaxes(exponentformat="e")
    # bits and values are never negative, so the axis of a run that has just begun must not be either
    figure.layout.yaxis.autorangeoptions.clipmin = figure.layout.yaxis3.autorangeoptions.clipmin = 0
    figure.layout.yaxis2.autorangeoptions.include = [0, 1]  # step 0, and the reference; a worse model is below 0


def _stage_bands(run: RunView, axis: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the shapes and labels of a tinted band for each stage of the run, in all plots."""
    shapes, notes = [], []
    for place, (number, stage) in enumerate(sorted(run.stages.items())):
        x0, x1 = (float(v) for v in run.x_of(axis, [stage.start, stage.end]))
        if not stage.name or not x1 > x0:
            continue
        for which in _AXES_OF:
            where = {"xref": f"x{which}", "yref": f"y{which} domain"}
            fill = {"fillcolor": _TINTS[place % 3], "line": {"width": 0}, "layer": "below"}
            shapes.append({"type": "rect", **where, "x0": x0, "x1": x1, "y0": 0, "y1": 1, **fill})
            words = {"text": f"stage {number}", "hovertext": stage.name, "showarrow": False, "yanchor": "top"}
            words["font"] = {"size": 11}
            notes.append({**where, "x": (x0 + x1) / 2, "y": 1, **words})
    return shapes, notes


def thinned(x: ArrayLike, y: ArrayLike, most: int = MOST_CURVE_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Return at most `most` points of a curve: the minimum and maximum of each section, so that spikes stay visible."""
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(xs) <= most:
        return xs, ys
    chosen: list[int] = [0, len(xs) - 1]
    for stretch in np.array_split(np.arange(1, len(xs) - 1), (most - 2) // 2):
        chosen += [int(stretch[np.argmin(ys[stretch])]), int(stretch[np.argmax(ys[stretch])])]
    kept = np.unique(chosen)
    return xs[kept], ys[kept]


def smoothed(y: np.ndarray, weight: float) -> np.ndarray:
    """Return the exponential moving average of finite `y` (n,), with `weight` for earlier values.

    The average is bias-corrected as in Adam, so that the curve begins at its first value and not at 0.
    """
    if not len(y) or weight <= 0:
        return y
    return pd.Series(y).ewm(alpha=1 - weight).mean().to_numpy()


def fitting_smoothing(steps: int) -> float:
    """Return the smoothing weight for a number of steps: it averages about a fiftieth of them, from 0.6 to 0.99."""
    return round(min(0.99, max(0.6, 1 - 50 / max(steps, 1))), 2)
