"""A report of runs: one HTML file about an alignment and the tunings that followed from it.

It says what the demo's report says (`report`), from run folders alone, and ends in the commands that repeat it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokalign_lab.errors import InputError
from tokalign_lab.report import (
    curves_html,
    least_sure,
    legend_html,
    maps_html,
    samples_html,
    table_html,
    write_page,
)
from tokalign_lab.runs.commands import command_of
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.gallery import recorded_words
from tokalign_lab.runs.results import diagnosis_of, last_evaluation, scores_of

if TYPE_CHECKING:
    from tokalign_lab.evaluation.diagnosis import Diagnosis
    from tokalign_lab.vocabulary import Vocabulary

_SCORES = (
    "On held-out text, 0 to 1, higher is better; with the interval that 95 % of resampled texts fall into. BLEU-1 and "
    "the sentence score compare a text's tokens with what the lexicon makes of its other tokenisation. P@1: how often "
    "a shared token that was hidden finds its twin."
)


def write_run_report(
    path: Path, align_run: RunFolder, tuned: Sequence[RunFolder] = (), floor: RunFolder | None = None
) -> Path:
    """Write a report.

    Parameters
    ----------
    path
        The HTML file.
    align_run
        An "align" run that has finished.
    tuned
        "adapt" runs of models that were made from it.
    floor
        A "measure" run of the source model, the floor of the curves.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        When the alignment has not finished, or a tokenizer is not to be found.
    """
    from tokalign_lab.alignment.recipes import Alignment

    info = align_run.reconcile()
    if info["kind"] != "align" or info["state"] != "finished":
        raise InputError(f"The run {align_run.name} is no alignment that has finished; a report begins with one.")
    alignment = Alignment.load(align_run.path / "alignment")
    names = [alignment.lexicon.provenance[side]["name"] for side in ("source", "target")]
    source, target = alignment.lexicon.vocabularies or _vocabularies(names)
    measured = None if floor is None else last_evaluation(floor)
    lowest = None if measured is None else float(measured["bits_per_byte"])
    sections = [
        f"<h1>{escape(names[0])} with the tokenizer {escape(names[1])}</h1>",
        *_recorded(align_run, *tuned),
        "<h2>The pair</h2>",
        table_html(_facts(alignment.lexicon.provenance, source.size, target.size)),
        table_html([{"origin": name, "rows": n} for name, n in alignment.lexicon.origin_counts().items()]),
        "<h2>Scores</h2>",
        f"<p>{_SCORES}</p>",
        table_html(score_rows(scores_of(align_run))),
        *_diagnosis(diagnosis_of(align_run), alignment, source, target),
        *[part for run in tuned for part in _tuning(run, lowest)],
        "<h2>Both embedding spaces</h2>",
        f"<p>The 1,500 most frequent tokens a side, by two principal components. {legend_html()}</p>",
        maps_html(alignment, source, target),
        "<h2>Pairs the lexicon is least sure of</h2>",
        "<p>Frequent tokens that the source lacks, by margin: how much better the best candidate is than the next.</p>",
        table_html(least_sure(alignment, source, target)),
        "<h2>Pairs the lexicon is surest of</h2>",
        table_html(least_sure(alignment, source, target, most=True)),
        "<h2>How this was made</h2>",
        *[_made(run) for run in (align_run, *tuned, *([floor] if floor else []))],
        f"<p class=quiet>Versions: {escape(str(alignment.lexicon.provenance['versions']))}</p>",
    ]
    return write_page(path, f"{names[0]} to {names[1]}", sections)


def score_rows(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the scores of an "align" run's scores.json as rows: what, direction, value, interval, n."""
    rows = []
    for part, measures in (("lexicon", ("bleu1", "sentence_score", "bert_score")), ("held_out", ("p_at_1", "p_at_10"))):
        intervals = scores.get(part, {}).get("intervals", {})
        for measure in measures:
            for direction, interval in intervals.get(measure, {}).items():
                told = {"score": measure, "direction": direction.replace("_", " "), "value": float(interval["mean"])}
                rows.append({**told, "from": interval["low"], "to": interval["high"], "n": interval["n"]})
    return rows


def _facts(provenance: Mapping[str, Any], source_size: int, target_size: int) -> list[dict[str, Any]]:
    facts = {
        "source": f"{provenance['source']['name']}, {source_size:,} tokens",
        "target": f"{provenance['target']['name']}, {target_size:,} tokens",
        "recipe": provenance["recipe"],
        "text": f"{provenance.get('text_bytes', 0):,} bytes",
    }
    return [{"": name, " ": value} for name, value in facts.items()]


def _vocabularies(names: Sequence[str]) -> tuple[Vocabulary, Vocabulary]:
    from tokalign_lab.catalog import load_vocabulary

    return load_vocabulary(names[0]), load_vocabulary(names[1])


def _recorded(*runs: RunFolder) -> list[str]:
    """Say of every run that is a recorded one that it is."""
    told = {run.title: recorded_words(run.info()) for run in runs}
    return [f"<p><b>{escape(title)}.</b> {escape(words)}</p>" for title, words in told.items() if words]


def _diagnosis(known: Diagnosis | None, alignment: Any, source: Any, target: Any) -> list[str]:
    from tokalign_lab.evaluation.diagnosis import diagnose

    vectors = alignment.source_vectors, alignment.target_vectors
    found = known or diagnose(alignment.lexicon, source, target, None if None in vectors else vectors)
    rows = [{"finding": f.name, "": f.severity, "evidence": f.evidence, "advice": f.advice} for f in found.findings]
    return [f"<h2>Diagnosis: {escape(found.verdict)}</h2>", table_html(rows)]


def _tuning(run: RunFolder, floor: float | None) -> list[str]:
    measured = [
        {"step": event["step"], "bits_per_byte": event["bits_per_byte"], **event.get("by_slice", {})}
        for event in run.curve("evaluation")
    ]
    words = "" if floor is None else f" The source model with its own tokenizer, the floor: {floor:.3f} bits a byte."
    return [
        f"<h2>Tuning: {escape(run.title)}</h2>",
        f"<p>State: {run.state}. Bits per UTF-8 byte of held-out text, lower is better.{words}</p>",
        curves_html(run, floor),
        table_html(measured),
        samples_html(run),
    ]


def _made(run: RunFolder) -> str:
    info = run.info()
    return (
        f"<p>{escape(info['kind'])}, {escape(str(info['created']))} to {escape(str(info['ended']))}:</p>"
        f"<pre><code>{escape(command_of(info))}</code></pre>"
    )
