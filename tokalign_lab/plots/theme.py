"""Colours of plotly figures for light and dark pages, and the buttons of every figure."""

from __future__ import annotations

from typing import Any

# after Okabe and Ito: distinct with colour-vision deficiency, on white and on black
PALETTE = ("#3a8fd0", "#e08a1e", "#1aa37d", "#dd5a50", "#a377d1", "#c9a800", "#5bb8d9", "#d26fa8")


def template(theme: str) -> dict[str, Any]:
    """Return layout values for a plotly figure on a light or dark page; the background is transparent."""
    dark = theme == "dark"
    ink, grid = ("#e8e8e8", "#363b41") if dark else ("#24292f", "#dde1e6")
    axis = {
        "gridcolor": grid, "linecolor": grid, "zerolinecolor": grid, "tickcolor": grid, "automargin": True,
        "tickfont": {"color": ink}, "title": {"font": {"color": ink, "size": 12}},
    }  # fmt: skip
    return {
        "layout": {
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": ink, "family": "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', sans-serif"},
            "xaxis": axis,
            "yaxis": axis,
            "legend": {"bgcolor": "rgba(0,0,0,0)"},
            "hoverlabel": {
                "bgcolor": "#2b3036" if dark else "#ffffff", "bordercolor": grid, "font": {"color": ink},
            },
            "newselection": {"line": {"color": ink, "width": 1}},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": ink, "activecolor": "#4f9df0" if dark else "#0b62b5"},
        }
    }  # fmt: skip


def plain_figures() -> None:
    """Make figures of a notebook readable on light and dark pages, by plotly's default template."""
    import plotly.io as pio
    from plotly import graph_objects as go

    both = template("light")["layout"]
    ink, grid = "#7a8490", "rgba(128, 136, 145, 0.3)"
    axis = both["xaxis"] | {name: grid for name in ("gridcolor", "linecolor", "zerolinecolor", "tickcolor")}
    axis |= {"tickfont": {"color": ink}, "title": {"font": {"color": ink}}}
    layout = both | {"font": both["font"] | {"color": ink}, "xaxis": axis, "yaxis": axis, "colorway": list(PALETTE)}
    pio.templates["tokalign"] = go.layout.Template(layout=layout)
    pio.templates.default = "tokalign"


def titles_left(figure: Any, size: int = 14) -> None:
    """Move the title of each plot to its left edge, away from the buttons at the right; `size` is in pixels."""
    for title, axis in zip(figure.layout.annotations, figure.select_xaxes(), strict=True):
        title.update(x=axis.domain[0], xanchor="left", font={"size": size})


# None of these buttons sends data anywhere; one of plotly's default buttons would.
CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtons": [["zoom2d", "pan2d", "select2d", "lasso2d", "resetScale2d", "toImage"]],
}
