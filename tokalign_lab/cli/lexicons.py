"""Commands that make lexicons, and that say how good they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from tokalign_lab import console
from tokalign_lab.cli.command import (
    MaxBytes,
    MoreText,
    Seed,
    SentenceEncoder,
    Source,
    Target,
    Text,
    app,
    check_out,
    command,
)


@command(app, "overlap")
def overlap(source: Source, target: Target) -> Any:
    """Count the target tokens that the source has too, by string and by bytes."""
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


@command(app, "align")
def align(
    source: Source,
    target: Target,
    text: Text,
    out: Annotated[Path, typer.Option("--out", help="Where the lexicon goes, a .parquet file.")],
    recipe: Annotated[str, typer.Option("--recipe", help="How to align; our best by default.")] = "anchored",
    shared_by: Annotated[
        str | None,
        typer.Option("--overlap", help="What makes a token shared: bytes, raw or none; the recipe's own by default."),
    ] = None,
    one_to_one: Annotated[bool, typer.Option("--one-to-one", help="Give no source row away twice.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", help="The source model, for recipes that read it (tokalign++-hidden, omp).")
    ] = None,
    donor: Annotated[
        str | None, typer.Option("--donor", help="A model that has the target tokenizer, for the recipe omp.")
    ] = None,
    seed: Seed = 0,
    max_bytes: MaxBytes = None,
    more_text: MoreText = None,
) -> Any:
    """Align two vocabularies over a text and write the lexicon."""
    from tokalign_lab import catalog
    from tokalign_lab.alignment.recipes import align as run
    from tokalign_lab.alignment.registry import check_recipe
    from tokalign_lab.corpus import tokenize_pair
    from tokalign_lab.documents import part_of, read_documents
    from tokalign_lab.progress import part

    method = check_recipe(recipe, model, donor, one_to_one, shared_by)
    check_out(out, suffix=".parquet")
    documents = part_of(read_documents([*text, *(more_text or [])], max_bytes=max_bytes, seed=seed), "train")
    vocabularies = catalog.load_vocabulary(source), catalog.load_vocabulary(target)
    with console.progress_bar("align") as progress:
        pair = tokenize_pair(*vocabularies, documents, progress=part(progress, 0.0, 0.2))
        alignment = run(
            pair,
            recipe=recipe,
            seed=seed,
            overlap=shared_by,
            progress=part(progress, 0.2, 1.0),
            model=_model(model) if model and method.needs_model else None,
            donor=(_model(donor), catalog.load_vocabulary(donor)) if donor and method.needs_donor else None,
            one_to_one=one_to_one,
        )
    lexicon = alignment.lexicon
    lexicon.save(out)
    result = {
        "lexicon": str(out),
        "recipe": recipe,
        "seed": seed,
        "target_size": len(lexicon),
        "origins": lexicon.origin_counts(),
        "text_bytes": lexicon.provenance["text_bytes"],
        "seconds": alignment.seconds,
    }
    return result, lambda: console.print_facts(result, title=f"{source} -> {target}")


def _model(name: str) -> Any:
    from tokalign_lab.model.load import load_model  # brings torch along, which most recipes do without

    return load_model(name)


@command(app, "score")
def score(
    lexicon: Annotated[Path, typer.Argument(help="A lexicon that `align` wrote.")],
    text: Text,
    encoder: SentenceEncoder = "minilm",
    twins: Annotated[
        bool,
        typer.Option("--twins", help="Also hide shared tokens, align anew and see whether they are found (P@1, P@10)."),
    ] = False,
    model: Annotated[
        str | None, typer.Option("--model", help="The source model, for --twins with recipes that read it.")
    ] = None,
    max_bytes: MaxBytes = None,
    seed: Seed = 0,
    more_text: MoreText = None,
) -> Any:
    """Score a lexicon on held-out text: BLEU-1, sentence score, BERTScore, coverage, both directions, by group.

    The means are kept in the lexicon's provenance too, so that the card of a model made from it can name them.
    """
    from tokalign_lab import catalog
    from tokalign_lab.alignment.lexicon import Lexicon
    from tokalign_lab.corpus import tokenize_pair
    from tokalign_lab.documents import part_of, read_documents
    from tokalign_lab.evaluation.breakdown import breakdown, twins_by_group
    from tokalign_lab.evaluation.held_out import held_out_precision
    from tokalign_lab.evaluation.lexicon_scores import score_lexicon
    from tokalign_lab.model.load import load_model

    table = Lexicon.load(lexicon)
    documents = read_documents([*text, *(more_text or [])], max_bytes=max_bytes, seed=seed)
    source, target = (catalog.load_vocabulary(table.provenance[side]["name"]) for side in ("source", "target"))
    table.check(source, target)
    held_out = tokenize_pair(source, target, part_of(documents, "held_out"))
    with console.progress_bar("score") as progress:
        scores = score_lexicon(table, held_out, encoder=encoder, seed=seed, progress=progress)
    if os.access(lexicon.absolute().parent, os.W_OK):
        table.provenance["scores"] = scores.means()
        table.save(lexicon)
    groups = breakdown(table, held_out, seed=seed)
    result = scores.to_dict()
    intervals = dict(scores.intervals)
    if twins:
        pair = tokenize_pair(source, target, part_of(documents, "train"))
        with console.progress_bar("twins") as progress:
            found = held_out_precision(
                pair,
                table.provenance["recipe"],
                seed=table.provenance["seed"],
                progress=progress,
                model=load_model(model) if model else None,
            )
        result["held_out"] = found.to_dict()
        result["twins_by_group"] = twins_by_group(found, pair).to_dict("records")
        intervals |= found.intervals
    result["breakdown"] = groups.to_dict("records")

    def show() -> None:
        rows = [
            {"score": measure, "of": name, **interval.to_dict()}
            for measure, by_name in intervals.items()
            for name, interval in by_name.items()
        ]
        console.print_table(rows, title=f"{lexicon}: means with 95 % intervals")
        kept = groups[(groups["direction"] == "target_to_source") & (groups["measure"] == "unigram_match")]
        columns = ("kind", "group", "n", "value", "low", "high")
        shown = [dict(zip(columns, row, strict=True)) for row in kept[list(columns)].to_numpy().tolist()]
        console.print_table(shown, title="Tokens of the target text whose partner the source text has")
        names = ("coverage_types", "hubs", "encoder", "documents", "sentences")
        facts: dict[str, Any] = {name: result[name] for name in names if name in result}
        console.print_facts(facts, title="Beside them")

    return result, show


@command(app, "diagnose")
def diagnose(
    lexicon: Annotated[Path, typer.Argument(help="A lexicon that `align` wrote.")],
    model: Annotated[
        str | None, typer.Option("--model", help="The source model; finds rows that rest on zero or untrained ones.")
    ] = None,
) -> Any:
    """Say whether a lexicon is good, usable or poor, and why."""
    from tokalign_lab import catalog
    from tokalign_lab.alignment.lexicon import Lexicon
    from tokalign_lab.evaluation.diagnosis import diagnose as run
    from tokalign_lab.model.load import load_model

    table = Lexicon.load(lexicon)
    source, target = (catalog.load_vocabulary(table.provenance[side]["name"]) for side in ("source", "target"))
    table.check(source, target)
    diagnosis = run(table, source, target, model=load_model(model, device="cpu", dtype="auto") if model else None)
    result = {"lexicon": str(lexicon), **diagnosis.to_dict()}

    def show() -> None:
        console.stdout.print(f"{lexicon}: {diagnosis.verdict}", style="bold", soft_wrap=True, markup=False)
        for finding in diagnosis.findings:
            line = f"{finding.severity:<5} {finding.name}: {finding.evidence} {finding.advice}".rstrip()
            console.stdout.print(line, soft_wrap=True, markup=False)
            if finding.examples and finding.severity != "ok":
                console.stdout.print(f"      e.g. {', '.join(finding.examples)}", soft_wrap=True, markup=False)

    return result, show


@command(app, "compare")
def compare(
    left: Annotated[str, typer.Argument(help="A: a lexicon, or a run by name or folder.")],
    right: Annotated[str, typer.Argument(help="B: another of the same pair.")],
    text: Annotated[
        list[str] | None,
        typer.Option("--text", help="Score both on the same held-out documents of this text, with the difference."),
    ] = None,
    encoder: SentenceEncoder = "minilm",
    max_bytes: MaxBytes = None,
    seed: Seed = 0,
) -> Any:
    """Compare two lexicons of one pair: which tokens changed their partner, and which scores higher."""
    from rich.markup import escape

    from tokalign_lab import catalog
    from tokalign_lab.corpus import tokenize_pair
    from tokalign_lab.documents import part_of, read_documents
    from tokalign_lab.evaluation.comparison import CHANGES, compare_lexicons, paired_scores
    from tokalign_lab.runs.results import lexicon_of

    a, b = lexicon_of(left), lexicon_of(right)
    found = compare_lexicons(a, b)
    moved = found.table[found.table["change"].isin(("changed", "gained", "lost"))].head(20).to_dict("records")
    partners = [dict(zip(one.table["source_id"], one.table["source_token"], strict=True)) for one in (a, b)]
    for row in moved:
        for side, tokens in zip("ab", partners, strict=True):
            row[f"partner_{side}"] = tokens.get(row[f"partner_{side}"], "")
    result: dict[str, Any] = {"a": left, "b": right, **found.to_dict(), "moved": moved}
    if text:
        documents = part_of(read_documents(text, max_bytes=max_bytes, seed=seed), "held_out")
        source, target = (catalog.load_vocabulary(a.provenance[side]["name"]) for side in ("source", "target"))
        pair = tokenize_pair(source, target, documents)
        with console.progress_bar("compare") as progress:
            scores = paired_scores(a, b, pair, encoder, seed, progress)
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
        console.print_table(lines, title="Moved, most used first")
        for measure, by_direction in result.get("scores", {}).items():
            for direction, score in by_direction.items():
                facts = {part: score[part] for part in ("a", "b", "difference")}
                title = f"{measure}, {direction}"
                console.print_table([{"": part, **values} for part, values in facts.items()], title=title)
                console.stdout.print(f"{score['verdict']} (paired bootstrap over documents)", soft_wrap=True)

    return result, show
