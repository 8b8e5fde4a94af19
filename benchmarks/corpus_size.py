"""How much text do the vectors need? The same swap with vectors from 1, 3, 10, 30 and 100 % of a text.

    python benchmarks/corpus_size.py --out benchmarks/results/corpus_size.jsonl

Passages are drawn from 6 MB of the default text, each language in proportion. `anchored` gets co-occurrence counts,
shared anchors and token frequencies from these passages alone. There is no calibration, which would read more text. "no
text" is the recipe `pieces`, which needs none. First-step loss is the loss on held-out text right after rearranging, in
nats per token as in TokAlign++ section 6, and in bits per byte. Then all models are tuned on one small text. The notes
name the smallest share whose result is within 10 % of that of all text, in bits per byte and in bits above the source.
Takes about 15 minutes on two cores.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import tuning
from harness import Kept, Result, report
from tuning import SLICES, Bench, curve_columns, mean

from tokalign_lab import catalog
from tokalign_lab.documents import excerpts, n_bytes
from tokalign_lab.vocabulary import Vocabulary

SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)
WITHIN = 0.1
NO_TEXT = "no text (pieces)"


def main() -> None:
    options = tuning.options(__doc__, steps=24)
    options.add_argument("--target", default="qwen2")
    given = tuning.settled(options, points=2, target="sp32k")
    kept, target = Kept(given, target=given.target), catalog.load_vocabulary(given.target)
    by: dict[str, list[Result]] = {}
    for bench in tuning.benches(given):
        by.setdefault("floor", []).append(kept(bench.source_bits, text_share="floor", **bench.key))
        by.setdefault("ceiling", []).append(kept(partial(bench.random_bits, target), text_share="ceiling", **bench.key))
        for share in SHARES[-2:] if given.quick else (0.0, *SHARES):
            name = f"{share:.0%}" if share else NO_TEXT
            by.setdefault(name, []).append(kept(partial(run, bench, target, share), text_share=name, **bench.key))
    runs = {name: lines for name, lines in by.items() if name not in ("floor", "ceiling")}
    rows = [row(name, lines, given) for name, lines in runs.items()]
    reference, random_rows = (mean([line["all"] for line in by[name]]) for name in ("floor", "ceiling"))
    notes = [
        f"{tuning.SOURCE} to {given.target}. Untuned source: {reference:.3f} bits per byte; every row random: "
        f"{random_rows:.3f}. The source tuned in the same way is not measured here, see recovery.py.",
        tuning.budget(given, next(iter(runs.values()))[0]),
        *(smallest(rows, column, reference or 0.0) for column in ("step 0", "end")),
        *(tuning.cost(name, lines) for name, lines in list(runs.items())[-1:]),
    ]
    report("How much text the vectors need", [("Bits per byte of held-out text", rows)], notes, given.out)


def run(bench: Bench, target: Vocabulary, share: float) -> Result:
    """Align on a share of the text, and tune."""
    whole = tuning.align_text()
    part = excerpts(whole, round((share or SHARES[0]) * n_bytes(whole)), tuning.TRAIN_PASSAGE, bench.seed)
    recipe = "anchored" if share else "pieces"
    model, lexicon = tuning.converted(target, bench.seed, bench.given.device, recipe, documents=part)
    first = bench.untuned(model, target)
    origins = lexicon.table["origin"].value_counts(normalize=True).to_dict()
    found = bench.tune(f"vectors from {share:.0%} of the text", bench.save(model, target), target)
    return {**found, "first": first, "aligned": origins.get("aligned", 0.0), "text_bytes": n_bytes(part) * bool(share)}


def row(name: str, lines: list[Result], given: argparse.Namespace) -> dict[str, Any]:
    return {
        "text": name,
        "bytes of text": lines[0]["text_bytes"],
        "tokens aligned by vectors": f"{mean([line['aligned'] for line in lines]):.1%}",
        "first-step loss": mean([line["first"]["nats_per_token"] for line in lines]),
        **{f"step 0, {tuning.TITLES[slice_]}": mean([line["first"][slice_] for line in lines]) for slice_ in SLICES},
        **curve_columns(lines, given, "all"),
    }


def smallest(rows: list[dict[str, Any]], column: str, reference: float) -> str:
    """Name the smallest share within 10 % of the result of all text, in bits per byte and in bits above the source."""
    known = [row for row in rows if row["text"] != NO_TEXT and row[column] is not None]
    best = known[-1][column]
    plain = next(row["text"] for row in known if row[column] <= best * (1 + WITHIN))
    above = next(
        row["text"]
        for row in known
        if row[column] - reference <= max((best - reference) * (1 + WITHIN), best - reference)
    )
    return f"{column}: smallest text within {WITHIN:.0%} of all of it: {plain}; by bits above the source: {above}."


if __name__ == "__main__":
    main()
