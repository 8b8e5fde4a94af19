"""One HTML file about a run: tables, both maps, learning curves, pairs with the largest and the smallest margin.

The demo's report and that of run folders use one template, `report.html.j2`. The file includes Plotly's script, so that
it opens without a network and can be sent by mail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokalign_lab.alignment.lexicon import ORIGINS
from tokalign_lab.alignment.recipes import Alignment
from tokalign_lab.catalog import load_vocabulary
from tokalign_lab.console import format_value
from tokalign_lab.errors import InputError, require_extra
from tokalign_lab.evaluation.diagnosis import diagnose
from tokalign_lab.files import atomic_file
from tokalign_lab.projection import project, share_a_space
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.folding import view_of
from tokalign_lab.runs.following import steps_of
from tokalign_lab.runs.gallery import recorded_words
from tokalign_lab.runs.kinds import command_of
from tokalign_lab.runs.results import diagnosis_of, last_evaluation, scores_of

if TYPE_CHECKING:
    from tokalign_lab.vocabulary import Vocabulary

    Row = dict[str, Any]

_PAIRS = 15  # with the smallest and with the largest margin
_MAP_TOKENS = 1500  # of each side


def write_report(
    out: Path, result: Mapping[str, Any], alignment: Alignment, source: Vocabulary, target: Vocabulary
) -> Path:
    """Write the demo's report, `report.html`, into `out` and return its path.

    Parameters
    ----------
    out : the demo's folder, with its `run`
    result : the result of `run_demo`: "pair", "lexicons", "models", "seconds", "settings"
    alignment : the alignment whose lexicon and vectors are shown
    source, target : its vocabularies, for readable labels
    """
    reference = result["models"][0]["bits_per_byte"]
    return _write(
        out / "report.html",
        alignment,
        (source, target),
        [RunFolder(out / "run")],
        reference,
        pair=result["pair"],
        scores=result["lexicons"],
        models=[{**row, "compared_with_the_source": row["bits_per_byte"] - reference} for row in result["models"]],
        settings=result["settings"],
        seconds=[{"stage": name, "seconds": round(value)} for name, value in result["seconds"].items()],
    )


def write_run_report(
    path: Path, align_run: RunFolder, tuned: Sequence[RunFolder] = (), reference: RunFolder | None = None
) -> Path:
    """Write a report of an alignment and of the tuning runs based on it.

    Raises `InputError` if the alignment has not finished, a tokenizer is not found, or plotly is not installed.

    Parameters
    ----------
    path : the HTML file; it is returned
    align_run : an "align" run that has finished
    tuned : "adapt" runs of models that were converted by its lexicon
    reference : a "measure" run of the source model, the reference of the curves
    """
    require_extra("lab", "plotly", "The report")
    info = align_run.reconcile()
    if info["kind"] != "align" or info["state"] != "finished":
        raise InputError(f"The run {align_run.name} is no alignment that has finished; a report begins with one.")
    alignment = Alignment.load(align_run.path / "alignment")
    lexicon, provenance = alignment.lexicon, alignment.lexicon.provenance
    names = [provenance[side]["name"] for side in ("source", "target")]
    source, target = lexicon.vocabularies or (load_vocabulary(names[0]), load_vocabulary(names[1]))
    measured = None if reference is None else last_evaluation(reference)
    a, b = alignment.source_vectors, alignment.target_vectors
    vectors = None if a is None or b is None else (a, b)
    diagnosis = diagnosis_of(align_run) or diagnose(lexicon, source, target, vectors)
    runs = [align_run, *tuned]
    return _write(
        path,
        alignment,
        (source, target),
        tuned,
        None if measured is None else float(measured["bits_per_byte"]),
        recorded=[(run.title, words) for run in runs if (words := recorded_words(run.info()))],
        pair={
            "source": f"{names[0]}, {source.size:,} tokens",
            "target": f"{names[1]}, {target.size:,} tokens",
            "recipe": provenance["recipe"],
            "text": f"{provenance.get('text_bytes', 0):,} bytes",
        },
        origins=[{"origin": name, "rows": n} for name, n in lexicon.origin_counts().items()],
        scores=score_rows(scores_of(align_run)),
        diagnosis=diagnosis,
        findings=[
            {"finding": found.name, "": found.severity, "evidence": found.evidence, "advice": found.advice}
            for found in diagnosis.findings
        ],
        surest=_by_margin(alignment, source, target, largest=True),
        made=[(run.info(), command_of(run.info())) for run in (*runs, *([reference] if reference else []))],
    )


def score_rows(scores: Mapping[str, Any]) -> list[Row]:
    """Return the scores of an "align" run as rows of score, direction, value, interval ("from", "to") and n."""
    rows = []
    for part, measures in (("lexicon", ("bleu1", "sentence_score", "bert_score")), ("held_out", ("p_at_1", "p_at_10"))):
        intervals = scores.get(part, {}).get("intervals", {})
        for measure in measures:
            for direction, interval in intervals.get(measure, {}).items():
                shown = {"score": measure, "direction": direction.replace("_", " "), "value": float(interval["mean"])}
                rows.append({**shown, "from": interval["low"], "to": interval["high"], "n": interval["n"]})
    return rows


def _write(
    path: Path,
    alignment: Alignment,
    vocabularies: tuple[Vocabulary, Vocabulary],
    tuned: Sequence[RunFolder],
    reference: float | None,
    **parts: Any,
) -> Path:
    """Write the page: the content of both reports, and `parts` by their names in the template."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    page = Environment(loader=PackageLoader("tokalign_lab", ""), autoescape=True, undefined=StrictUndefined)
    maps, legend = _maps(alignment, *vocabularies)
    tunings = [_tuning(run, reference) for run in tuned]
    html = page.get_template("report.html.j2").render(
        **dict.fromkeys(("recorded", "origins", "diagnosis", "models", "made"), ()) | parts,
        names=[alignment.lexicon.provenance[side]["name"] for side in ("source", "target")],
        reference=reference,
        tunings=tunings,
        maps=maps,
        legend=legend,
        least_sure=_by_margin(alignment, *vocabularies),
        versions=alignment.lexicon.provenance["versions"],
        script=Markup(get_plotlyjs()) if maps or tunings else "",
        format_value=format_value,
        numeric=lambda rows: {name for name in rows[0] if all(isinstance(row[name], int | float) for row in rows)},
        facts=lambda values: [{"": name, " ": value} for name, value in values.items()],
    )
    with atomic_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def _tuning(run: RunFolder, reference: float | None) -> Row:
    """Draw a tuning run's curves, next to the reference, and list its measurements and samples."""
    from tokalign_lab.plots.curves import curves_figure

    events = run.events()[0]
    view = view_of(events, total_steps=steps_of(run.info()["settings"]), reference=reference, name=run.title)

    def rows(kind: str, **columns: str) -> list[Row]:
        of_kind = [event for event in events if event.get("kind") == kind]
        return [{name: event[key] for name, key in columns.items()} | event.get("by_slice", {}) for event in of_kind]

    return {
        "title": run.title,
        "state": run.state,
        "curves": _plot(curves_figure([view])),
        "measured": rows("evaluation", step="step", bits_per_byte="bits_per_byte"),
        "samples": rows("sample", step="step", prompt="prompt", continuation="text"),
    }


def _maps(alignment: Alignment, source: Vocabulary, target: Vocabulary) -> tuple[Any, list[tuple[str, str, str]]]:
    """Draw the most frequent tokens of each side ("" for a recipe without vectors); return the map and its legend."""
    from tokalign_lab.plots.maps import ORIGIN_COLOURS, MapPoints, maps_figure

    legend = [(origin, ORIGIN_COLOURS[origin], ORIGINS[origin]) for origin in ("identical", "aligned", "pieces")]
    if alignment.source_vectors is None or alignment.target_vectors is None:
        return "", legend
    spaces = alignment.source_vectors, alignment.target_vectors
    projections = project(spaces, "pca", shared=share_a_space(*spaces))
    origins = (alignment.lexicon.reverse["origin"].to_numpy(), alignment.lexicon.table["origin"].to_numpy())
    points = []
    for vocabulary, projection, vectors, origin in zip((source, target), projections, spaces, origins, strict=True):
        most = np.argsort(-vectors.counts, kind="stable")[:_MAP_TOKENS]
        ids = projection.ids[most]
        labels = [escape(vocabulary.label(int(i))) for i in ids]  # plotly reads labels as HTML
        points.append(MapPoints(projection.xy[most], labels, [ORIGIN_COLOURS[origin[i]] for i in ids]))
    return _plot(maps_figure(points[0], points[1], names=(source.name, target.name))), legend


def _plot(figure: Any) -> Any:
    from markupsafe import Markup

    return Markup(figure.to_html(full_html=False, include_plotlyjs=False))


def _by_margin(alignment: Alignment, source: Vocabulary, target: Vocabulary, largest: bool = False) -> list[Row]:
    """List frequent pairs with the smallest, or the largest, margin: best candidate's score minus the next one's."""
    table = alignment.lexicon.table
    aligned = table[(table["origin"] == "aligned") & (table["target_count"] >= 20)]
    ordered = aligned.sort_values(["margin", "target_id"], ascending=[not largest, True]).head(_PAIRS)
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
