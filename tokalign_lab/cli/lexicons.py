"""Commands that make lexicons and measure them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokalign_lab import console
from tokalign_lab.cli.command import SentenceEncoder, app, check_out, command
from tokalign_lab.settings.kinds import AdviseSettings, AlignSettings, CompareSettings, ScoreSettings, TextSettings

if TYPE_CHECKING:
    from tokalign_lab.evaluation.measured_moves import ExpectedLoss


@command(app, "overlap")
def overlap(
    source: Annotated[str, typer.Argument(help="The model's own tokenizer.")],
    target: Annotated[str, typer.Argument(help="The model's new tokenizer.")],
) -> Any:
    """Count the target tokens that the source also has, by string and by bytes."""
    from tokalign_lab import catalog
    from tokalign_lab.vocabulary import overlap as count

    found = count(catalog.load_vocabulary(source), catalog.load_vocabulary(target))
    result: dict[str, Any] = {
        "source": source,
        "target": target,
        "target_size": found.target_size,
        "raw": {"count": found.raw_count, "share": found.raw_share},
        "bytes": {"count": found.bytes_count, "share": found.bytes_share},
    }
    rows = [{"compared_by": by, "shared": result[by]["count"], "share": result[by]["share"]} for by in ("raw", "bytes")]
    return result, lambda: console.print_table(rows, title=f"{source} -> {target}: {found.target_size:,} target tokens")


@command(app, "advise")
def advise(settings: AdviseSettings) -> Any:
    """Estimate whether a swap is worth it on your text: tokens saved, speed, memory, quality, and a verdict."""
    from tokalign_lab import pipeline

    with console.progress_bar("advise") as progress:
        advice = pipeline.advise(settings, progress)
    result = {"model": settings.model, "target": settings.target, **advice.to_dict()}

    def show() -> None:
        title = f"{settings.model} -> {settings.target}: {advice.verdict}"
        console.stdout.print(title, style="bold", soft_wrap=True)
        console.stdout.print(advice.reason, soft_wrap=True)
        judged = [one for one in advice.slices if one.verdict != "too little text"]
        gains = [
            {
                "slice": one.counts.slice,
                "bytes": one.counts.n_bytes,
                "tokens": f"{-one.counts.saved:+.1%}",
                "bytes/s": f"{one.source_speed:,.0f} -> {one.target_speed:,.0f}",
                "speed": f"x{one.faster[1]:.2f}",
                "context, bytes": "-" if one.context_gained is None else f"{one.context_gained:+,}",
                "swap": "" if one is advice.total else one.verdict,
            }
            for one in (*judged, advice.total)
        ]
        losses = [
            {
                "slice": one.counts.slice,
                "right after": _range(one.right_after),
                "after recovery": _range(one.recovered),
                "measured on": one.recovered.basis,
            }
            for one in (*judged, advice.total)
        ]
        console.print_table(gains, title="Gains")
        left_out = ", ".join(one.counts.slice for one in advice.slices if one not in judged)
        if left_out:
            console.stdout.print(f"Too little text in {left_out}.", soft_wrap=True)
        console.print_table(losses, title="Bits per byte relative to the source's (number of measurements)")
        sizes, step = advice.sizes, advice.step
        facts = {
            "million weights": f"{sizes.source_weights / 1e6:,.0f} -> {sizes.target_weights / 1e6:,.0f}",
            "memory as saved, GB": f"{sizes.source_bytes / 1e9:.2f} -> {sizes.target_bytes / 1e9:.2f}",
            "step of generation, ms": f"{1e3 * step.source[1]:.1f} -> {1e3 * step.target[1]:.1f}",
            "of it the head, ms": f"{1e3 * step.source_head:.1f} -> {1e3 * step.target_head:.1f}",
            "timed on": f"{step.device}, {step.dtype}, {step.steps} steps",
            "tokens not in the text": f"{advice.text.unseen:,} of {advice.text.is_text.sum():,}",
            "text in tokens the source lacks": f"{result['rows']['new_share_of_text_tokens']:.1%} of its tokens",
        }
        console.print_facts(facts, title="Costs")
        tokens = [number for one in judged for number in one.recovered.tokens]
        words = "The source was tuned on the same text for comparison. Recovery read"
        console.stdout.print(f"{words} {min(tokens):,} to {max(tokens):,} tokens. Measured runs:", soft_wrap=True)
        for run in dict.fromkeys(run for one in judged for run in (*one.right_after.runs, *one.recovered.runs)):
            console.stdout.print(f"  {run}", soft_wrap=True)
        if not advice.total.recovered.this_pair:
            console.stdout.print("Recovery of this pair was never measured; the ranges are from other pairs.")

    return result, show


def _range(loss: ExpectedLoss) -> str:
    low, high = f"x{loss.low:.2f}", f"x{loss.high:.2f}"
    return f"{low if low == high else f'{low} to {high}'} ({loss.n})"


@command(app, "align")
def align(
    settings: AlignSettings, out: Annotated[Path, typer.Option("--out", help="The .parquet file for the lexicon.")]
) -> Any:
    """Align two vocabularies over a text and write the lexicon."""
    from tokalign_lab import pipeline

    pipeline.check_align(settings)
    check_out(out, suffix=".parquet")
    text = pipeline.read_pair(settings)
    with console.progress_bar("align") as progress:
        alignment = pipeline.align_text(text, settings, progress)
    lexicon = alignment.lexicon
    lexicon.save(out)
    result = {
        "lexicon": str(out),
        "recipe": settings.recipe,
        "seed": settings.seed,
        "target_size": len(lexicon),
        "origins": lexicon.origin_counts(),
        "text_bytes": lexicon.provenance["text_bytes"],
        "seconds": alignment.seconds,
    }
    return result, lambda: console.print_facts(result, title=f"{settings.source} -> {settings.target}")


def _as_aligned(given: Mapping[str, Any]) -> ScoreSettings:
    """Use the split of the lexicon's alignment, unless options change it."""
    from tokalign_lab.alignment.lexicon import Lexicon

    return ScoreSettings.from_dict(Lexicon.load(Path(given["lexicon"])).provenance.get("split", {}) | dict(given))


@command(app, "score", make=_as_aligned, needs={"model": "twins"})
def score(settings: ScoreSettings) -> Any:
    """Score a lexicon on held-out text: BLEU-1, sentence score, BERTScore, coverage, both directions, by group.

    Seed, sample and held-out share default to those of the alignment. The means are also stored in the lexicon's
    provenance, for the card of a model made from it.
    """
    from tokalign_lab import pipeline

    with console.progress_bar("score") as progress:
        scores, groups, hidden = pipeline.score(settings, progress)
    result, intervals = scores.to_dict(), dict(scores.intervals)
    if hidden is not None:
        result["held_out"] = hidden[0].to_dict()
        result["twins_by_group"] = hidden[1].to_dict("records")
        intervals |= hidden[0].intervals
    result["breakdown"] = groups.to_dict("records")

    def show() -> None:
        rows = [
            {"score": measure, "of": name, **interval.to_dict()}
            for measure, by_name in intervals.items()
            for name, interval in by_name.items()
        ]
        console.print_table(rows, title=f"{settings.lexicon}: means with 95 % intervals")
        kept = groups[(groups["direction"] == "target_to_source") & (groups["measure"] == "unigram_match")]
        shown: list[Any] = kept[["kind", "group", "n", "value", "low", "high"]].to_dict("records")
        console.print_table(shown, title="Tokens of the target text whose partner the source text has")
        names = ("coverage_types", "hubs", "encoder", "documents", "sentences")
        console.print_facts({name: result[name] for name in names if name in result}, title="Other figures")

    return result, show


@command(app, "diagnose", needs={"text": "moved"})
def diagnose(
    lexicon: Annotated[Path, typer.Argument(help="A lexicon written by `align`.")],
    model: Annotated[
        str | None, typer.Option("--model", help="The source model, to find rows built from zero or untrained rows.")
    ] = None,
    moved: Annotated[
        str | None,
        typer.Option("--moved", help="A model made from this lexicon, to find new rows that differ from trained ones."),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="With --moved: the text; its held-out part is read.")
    ] = None,
) -> Any:
    """Check a lexicon and list its problems, with evidence and advice."""
    from tokalign_lab import catalog
    from tokalign_lab.documents import read_parts
    from tokalign_lab.evaluation import diagnosis
    from tokalign_lab.model.load import load_model
    from tokalign_lab.pipeline import open_lexicon

    table, source, target = open_lexicon(lexicon)
    if model:
        table.check(catalog.load_vocabulary(model))
    if moved:
        diagnosis.check_moved(catalog.load_vocabulary(moved), target)
    read = TextSettings.from_dict(table.provenance.get("split", {}) | {"text": text or ["default"]})
    documents = read_parts(read, ("held_out",))[1] if moved else ()
    models = [load_model(name, device="cpu", dtype="auto") if name else None for name in (model, moved)]
    found = diagnosis.diagnose(table, source, target, model=models[0])
    if models[1] is not None:
        found = diagnosis.with_new_rows(found, table, target, models[1], documents)
    result = {"lexicon": str(lexicon), **found.to_dict()}

    def show() -> None:
        console.stdout.print(f"{lexicon}: {found.verdict}", style="bold", soft_wrap=True, markup=False)
        for finding in found.findings:
            line = f"{finding.severity:<5} {finding.name}: {finding.evidence} {finding.advice}".rstrip()
            console.stdout.print(line, soft_wrap=True, markup=False)
            if finding.examples and finding.severity != "ok":
                console.stdout.print(f"      e.g. {', '.join(finding.examples)}", soft_wrap=True, markup=False)

    return result, show


@command(app, "compare", needs=dict.fromkeys(("encoder", "max_bytes", "seed"), "text"))
def compare(
    left: Annotated[str, typer.Argument(help="A: a lexicon, or a run by name or folder.")],
    right: Annotated[str, typer.Argument(help="B: another of the same pair.")],
    text: Annotated[
        list[str] | None,
        typer.Option("--text", help="Score both on the same held-out documents of this text, with the difference."),
    ] = None,
    encoder: SentenceEncoder = "minilm",
    max_bytes: Annotated[int | None, typer.Option(help="As for `align`; by default as for A's alignment.")] = None,
    seed: Annotated[int | None, typer.Option(help="As for `align`; by default as for A's alignment.")] = None,
) -> Any:
    """Compare two lexicons of one pair: which tokens have another partner, and which lexicon scores higher."""
    from rich.markup import escape

    from tokalign_lab import pipeline
    from tokalign_lab.alignment.lexicon import Lexicon
    from tokalign_lab.evaluation.comparison import CHANGES, compare_lexicons
    from tokalign_lab.runs.results import lexicon_file

    files = [lexicon_file(given) for given in (left, right)]
    a, b = (Lexicon.load(file) for file in files)
    found = compare_lexicons(a, b)
    moved = found.table[found.table["change"].isin(("changed", "gained", "lost"))].head(20).to_dict("records")
    partners = [dict(zip(one.table["source_id"], one.table["source_token"], strict=True)) for one in (a, b)]
    for row in moved:
        for side, tokens in zip("ab", partners, strict=True):
            row[f"partner_{side}"] = tokens.get(row[f"partner_{side}"], "")
    result: dict[str, Any] = {"a": left, "b": right, **found.to_dict(), "moved": moved}
    if text:
        given = {"text": text, "max_bytes": max_bytes, "seed": seed, "left": str(files[0]), "right": str(files[1])}
        split = a.provenance.get("split", {}) | {k: v for k, v in given.items() if v is not None}
        with console.progress_bar("compare") as progress:
            scores = pipeline.compare_scores(CompareSettings.from_dict({**split, "encoder": encoder}), progress)
        result["scores"] = {
            measure: {direction: one.to_dict() for direction, one in by_direction.items()}
            for measure, by_direction in scores.items()
        }

    def show() -> None:
        shares = found.text_shares or {}
        rows = [{"tokens": n, "": CHANGES[name], "of the text": shares.get(name)} for name, n in found.counts.items()]
        console.print_table(rows, title=f"A {left}, B {right}")
        keys = ("token", "change", "partner_a", "partner_b", "frequency")
        lines = [{key: escape(str(row[key])) for key in keys} for row in moved]  # tokens look like markup: [/INST]
        console.print_table(lines, title="Tokens with another partner, most frequent first")
        for measure, by_direction in result.get("scores", {}).items():
            for direction, score in by_direction.items():
                facts = {part: score[part] for part in ("a", "b", "difference")}
                title = f"{measure}, {direction}"
                console.print_table([{"": part, **values} for part, values in facts.items()], title=title)
                console.stdout.print(f"{score['verdict']} (paired bootstrap over documents)", soft_wrap=True)

    return result, show
