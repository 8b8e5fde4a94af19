"""One HTML file that shows what was found: tables, the lexicon's best and worst pairs, both maps, the curves.

It needs nothing beside itself: plotly's script is inside, so it opens without a network and can be sent by mail.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokalign_lab.console import format_value
from tokalign_lab.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tokalign_lab.alignment.recipes import Alignment
    from tokalign_lab.vocabulary import Vocabulary

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --paper: #fff; --line: #d5d9de; --quiet: #5b646d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --paper: #16191c; --line: #3a4148; --quiet: #a3acb5; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 70rem;
  margin: 2.5rem auto; padding: 0 1.2rem; }
h1, h2 { line-height: 1.2; } p { max-width: 46rem; } .quiet { color: var(--quiet); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .8rem; text-align: left; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
code { font: .88em ui-monospace, monospace; white-space: pre-wrap; } .plot { background: #fff; border-radius: 6px; }
"""
_WORST_FIRST = 15


def write_report(
    out: Path, result: Mapping[str, Any], alignment: Alignment, source: Vocabulary, target: Vocabulary
) -> Path:
    """Write `report.html` into `out`.

    Parameters
    ----------
    out : Path
        The demo's folder, with its `run`.
    result : mapping
        What `run_demo` returns: "pair", "lexicons", "models", "seconds", "settings".
    alignment : Alignment
        Whose lexicon and vectors are shown.
    source, target : Vocabulary
        Its two vocabularies, for labels that people can read.

    Returns
    -------
    Path
        The file.
    """
    from tokalign_lab.runs.folder import RunFolder

    pair = result["pair"]
    floor = result["models"][0]["bits_per_byte"]
    sections = [
        f"<h1>{escape(pair['source'])} with the tokenizer {escape(pair['target'])}</h1>",
        "<p>A language model was given another tokenizer: both vocabularies were aligned on one text, the model's "
        "embedding rows were rearranged by that lexicon, and the model was tuned back in two stages.</p>",
        "<h2>The pair</h2>",
        table_html([{"": name, " ": value} for name, value in pair.items()]),
        "<h2>The lexicons</h2>",
        "<p>Scores on held-out text, 0 to 1, higher is better. Coverage: the share of the vocabulary (of the text) "
        "whose row does not rest on a fallback. BLEU-1 and the sentence score (the cosine that the papers call "
        "BERTScore) compare a text's tokens with what the lexicon makes of its other tokenisation. P@1: how often a "
        "shared token that was hidden finds its twin.</p>",
        table_html(result["lexicons"]),
        "<h2>The models</h2>",
        "<p>Bits per UTF-8 byte of held-out text, lower is better; the first row is the floor, the second the "
        "ceiling. Interface texts are short strings in many languages that the source model hardly knows.</p>",
        table_html([{**row, "above_floor": row["bits_per_byte"] - floor} for row in result["models"]]),
        "<h2>Tuning</h2>",
        curves_html(RunFolder(out / "run"), floor),
        samples_html(RunFolder(out / "run")),
        "<h2>Both embedding spaces</h2>",
        "<p>The 1,500 most frequent tokens a side, by the first two principal components of the space that both "
        "vocabularies share. " + legend_html() + "</p>",
        maps_html(alignment, source, target),
        "<h2>Pairs the lexicon is least sure of</h2>",
        "<p>Frequent tokens that the source lacks, by margin: how much better the best candidate is than the next.</p>",
        table_html(least_sure(alignment, source, target)),
        "<h2>How this was made</h2>",
        "<p><code>tokalign-lab demo</code>, with these settings:</p>",
        table_html([{"": name, " ": value} for name, value in result["settings"].items()]),
        "<p>Seconds:</p>",
        table_html([{"stage": name, "seconds": round(value)} for name, value in result["seconds"].items()]),
        f"<p class=quiet>Versions: {escape(str(alignment.lexicon.provenance['versions']))}</p>",
    ]
    return write_page(out / "report.html", f"{pair['source']} to {pair['target']}", sections)


def write_page(path: Path, title: str, sections: Sequence[str]) -> Path:
    """Write one HTML file that needs nothing beside itself; returns its path."""
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style><body>{''.join(sections)}</body></html>"
    )
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def table_html(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows of the same keys as a table, numbers to the right."""
    if not rows:
        return "<p>(none)</p>"
    numeric = {name for name in rows[0] if all(isinstance(row[name], int | float) for row in rows)}
    css = {name: " class=number" if name in numeric else "" for name in rows[0]}
    head = "".join(f"<th scope=col{css[name]}>{escape(name.replace('_', ' '))}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td{css[name]}>{escape(format_value(value))}</td>" for name, value in row.items()) + "</tr>"
        for row in rows
    )
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def curves_html(run: Any, floor: float | None) -> str:
    """Draw the curves of a tuning run, beside the source model's floor."""
    from tokalign_lab.plots.curves import curves_figure
    from tokalign_lab.runs.folding import view_of

    view = view_of(run.events()[0], total_steps=run.info()["settings"]["steps"], floor=floor, name=run.title)
    return _plot(curves_figure([view]), with_script=True)


def samples_html(run: Any) -> str:
    """List how a tuning run's prompts were continued, over time."""
    rows = [
        {"step": event["step"], "prompt": event["prompt"], "continued": event["text"]}
        for event in run.events()[0]
        if event.get("kind") == "sample"
    ]
    return table_html(rows)


def maps_html(alignment: Alignment, source: Vocabulary, target: Vocabulary) -> str:
    """Draw both maps, of the 1,500 most frequent tokens a side."""
    import numpy as np

    from tokalign_lab.plots.maps import ORIGIN_COLOURS, MapPoints, maps_figure
    from tokalign_lab.projection import project, share_a_space

    source_vectors, target_vectors = alignment.source_vectors, alignment.target_vectors
    if source_vectors is None or target_vectors is None:
        return "<p>(this recipe has no vectors)</p>"
    spaces = (source_vectors, target_vectors)
    projections = project(spaces, "pca", shared=share_a_space(*spaces))
    origins = (alignment.lexicon.reverse["origin"].to_numpy(), alignment.lexicon.table["origin"].to_numpy())
    points = []
    for vocabulary, projection, vectors, origin in zip((source, target), projections, spaces, origins, strict=True):
        most = np.argsort(-vectors.counts, kind="stable")[:1500]
        ids = projection.ids[most]
        labels = [escape(vocabulary.label(int(i))) for i in ids]
        points.append(MapPoints(ids, projection.xy[most], labels, [ORIGIN_COLOURS[origin[i]] for i in ids]))
    return _plot(maps_figure(points[0], points[1], names=(source.name, target.name)))


def legend_html() -> str:
    """Say the maps' colours in words."""
    from tokalign_lab.alignment.lexicon import ORIGINS
    from tokalign_lab.plots.maps import ORIGIN_COLOURS

    words = [
        f"<span style='color:{ORIGIN_COLOURS[origin]}'>●</span> {origin}: {escape(ORIGINS[origin])}"
        for origin in ("identical", "aligned", "pieces")
    ]
    return "; ".join(words) + "."


def _plot(figure: Any, with_script: bool = False) -> str:
    return f"<div class=plot>{figure.to_html(full_html=False, include_plotlyjs=with_script)}</div>"


def least_sure(
    alignment: Alignment, source: Vocabulary, target: Vocabulary, most: bool = False
) -> list[dict[str, Any]]:
    """Frequent pairs with the smallest margin, or with the largest: how far the best candidate leads the next."""
    table = alignment.lexicon.table
    aligned = table[(table["origin"] == "aligned") & (table["target_count"] >= 20)]
    ordered = aligned.sort_values(["margin", "target_id"], ascending=[not most, True]).head(_WORST_FIRST)
    return [
        {
            "target_token": target.label(row["target_id"]),
            "best_source_token": source.label(row["source_id"]),
            "score": float(row["score"]),
            "margin": float(row["margin"]),
            "times_in_the_text": int(row["target_count"]),
        }
        for row in ordered.to_dict("records")
    ]
