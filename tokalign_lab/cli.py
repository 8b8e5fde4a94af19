"""The command line: every stage of the pipeline as one command, for shells and for other programs.

A command names what it takes, checks it, calls the room that does the work, and prints what came out; nothing is
computed here. Every command takes `--json` (see `console`). SOURCE, TARGET and MODEL are catalogue names, paths (a
folder or a tokenizer file) or hub ids.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from tokalign_lab import console
from tokalign_lab.errors import InputError

app = typer.Typer(
    name="tokalign-lab",
    help="Give a language model somebody else's tokenizer: align, rearrange, tune back.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # a wrong option ends in plain lines, not in a box
    pretty_exceptions_enable=False,
)
assets_app = typer.Typer(help="Packaged models, tokenizers and texts.", no_args_is_help=True)
runs_app = typer.Typer(
    help="Jobs in their own processes: list, watch, pause, cancel, resume, rename, delete.", no_args_is_help=True
)
app.add_typer(assets_app, name="assets")
gallery_app = typer.Typer(help="Recorded runs that ship with the package: list, record.", no_args_is_help=True)
app.add_typer(runs_app, name="runs")
app.add_typer(gallery_app, name="gallery")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Text = Annotated[
    list[str],
    typer.Option("--text", help="A text: 'default', a file, a folder, or hub:org/name. May be repeated."),
]
# `--text a b` is how people write several texts; what follows the named arguments is taken as more of them.
MoreText = Annotated[list[str] | None, typer.Argument(hidden=True)]
MaxBytes = Annotated[int | None, typer.Option("--max-bytes", help="Take a sample of about this many bytes.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything that is drawn.")]
Source = Annotated[str, typer.Argument(help="Tokenizer of the model as it is.")]
Target = Annotated[str, typer.Argument(help="Tokenizer the model shall get.")]


def command(
    group: typer.Typer, name: str, failed: Callable[[dict[str, Any]], bool] = lambda result: False
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Register a function that returns its result as a dict; print that as JSON or let `show` print it.

    The function returns `(result, show)`: `show()` prints the result for people. Bad input becomes one sentence on
    stderr and exit code 2; a result of which `failed` is true ends in exit code 1.
    """

    def register(function: Callable[..., Any]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            console.set_up_logging()
            as_json = bool(kwargs.pop("json", False))
            try:
                result, show = function(*args, **kwargs)
            except InputError as error:
                console.stderr.print(str(error), style="bold red", soft_wrap=True, markup=False)
                if as_json:
                    console.print_json({"error": str(error)})
                raise typer.Exit(2) from None
            except KeyboardInterrupt:
                console.stderr.print("Interrupted.")
                raise typer.Exit(130) from None
            if as_json:
                console.print_json(result)
            else:
                show()
            if failed(result):
                raise typer.Exit(1)

        signature = dict(function.__annotations__)
        signature.pop("return", None)
        run.__annotations__ = {**signature, "json": Json}
        run.__signature__ = _with_json(function)  # type: ignore[attr-defined]
        group.command(name)(run)
        return run

    return register


def _with_json(function: Callable[..., Any]) -> Any:
    import inspect

    signature = inspect.signature(function, eval_str=True)
    json = inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json)
    return signature.replace(parameters=[*signature.parameters.values(), json])


@command(assets_app, "list")
def assets_list() -> Any:
    """List what the catalogue has, what it costs to fetch, and what is here."""
    from tokalign_lab import catalog

    rows = [
        {
            "name": asset.name,
            "kind": asset.kind,
            "size_bytes": asset.size_bytes,
            "cached": catalog.cached_path(asset.name) is not None,
            "licence": asset.licence,
            "origin": asset.origin,
            "description": asset.description,
        }
        for asset in catalog.assets()
    ]
    sizes = {asset.name: f"{asset.size_bytes / 1e6:,.1f} MB" for asset in catalog.assets()}
    keys = ("name", "kind", "cached", "licence")
    shown = [{**{key: row[key] for key in keys}, "to fetch": sizes[str(row["name"])]} for row in rows]
    return {"assets": rows}, lambda: console.print_table(shown)


@command(assets_app, "get")
def assets_get(name: Annotated[list[str], typer.Argument(help="Names from `assets list`.")]) -> Any:
    """Fetch assets into the cache, checked by their SHA-256."""
    from tokalign_lab import catalog

    paths = {}
    for one in name:
        catalog.find(one)  # an unknown name ends here, before anything is fetched
    for one in name:
        with console.progress_bar(one) as progress:
            paths[one] = str(catalog.get(one, progress=progress))
    return {"paths": paths}, lambda: console.print_facts(paths)


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
    _check_out(out, suffix=".parquet")
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
    encoder: Annotated[
        str, typer.Option("--encoder", help="Sentence encoder: a name, a folder or a hub id.")
    ] = "minilm",
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
    max_bytes: MaxBytes = None,
    seed: Seed = 0,
) -> Any:
    """Compare two lexicons of one pair: which tokens changed their partner, and which scores higher."""
    from rich.markup import escape

    from tokalign_lab import catalog
    from tokalign_lab.corpus import tokenize_pair
    from tokalign_lab.documents import part_of, read_documents
    from tokalign_lab.evaluation.comparison import CHANGES, compare_lexicons, paired_bleu1
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
        result["bleu1"] = {name: score.to_dict() for name, score in paired_bleu1(a, b, pair, seed).items()}

    def show() -> None:
        shares = found.text_shares or {}
        rows = [{"tokens": n, "": CHANGES[name], "of the text": shares.get(name)} for name, n in found.counts.items()]
        console.print_table(rows, title=f"A {left}, B {right}")
        keys = ("token", "change", "partner_a", "partner_b", "frequency")
        lines = [{key: escape(str(row[key])) for key in keys} for row in moved]  # tokens look like markup: [/INST]
        console.print_table(lines, title="Moved, most used first")
        for name, score in result.get("bleu1", {}).items():
            facts = {part: score[part] for part in ("a", "b", "difference")}
            console.print_table([{"": part, **values} for part, values in facts.items()], title=f"BLEU-1, {name}")
            console.stdout.print(f"{score['verdict']} (paired bootstrap over documents)", soft_wrap=True)

    return result, show


@command(app, "check", failed=lambda result: result["verdict"] == "fail")
def check(
    model_dir: Annotated[str, typer.Argument(help="A model and its tokenizer: a folder, a name or a hub id.")],
) -> Any:
    """Try whether a model's folder is sound: ids, tokenizer, rows, head, chat template, generation, GGUF.

    Ends in exit code 1 where something fails.
    """
    from tokalign_lab.model.check import check_folder

    with console.progress_bar("check") as progress:
        found = check_folder(model_dir, progress=progress)
    result = {"model": model_dir, **found.to_dict()}

    def show() -> None:
        rows = [
            {
                "check": finding.name,
                "": finding.severity,
                "evidence": finding.evidence + f" E.g. {', '.join(finding.examples)}" * bool(finding.examples),
                "advice": finding.advice,
            }
            for finding in found.findings
        ]
        rows += [
            {"check": name, "": "-", "evidence": f"Not looked at, because of: {cause}.", "advice": ""}
            for name, cause in found.left_out.items()
        ]
        console.print_table(rows, title=f"{model_dir}: {found.verdict}")

    return result, show


@command(app, "rearrange")
def rearrange(
    model: Annotated[str, typer.Argument(help="The model whose rows are rearranged.")],
    lexicon: Annotated[Path, typer.Argument(help="A lexicon that `align` wrote.")],
    out: Annotated[Path, typer.Option("--out", help="The folder for the new model.")],
    target: Annotated[
        str | None,
        typer.Option("--target", help="The target tokenizer, where it is not at its old place any more."),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option("--calibrate", help="Text to shift the logits by, so that tokens are expected as often as here."),
    ] = None,
    keep_tied: Annotated[
        bool, typer.Option("--keep-tied", help="Leave tied matrices tied, at some loss; input rows serve both.")
    ] = False,
    pad_to_multiple_of: Annotated[
        int | None,
        typer.Option("--pad-to-multiple-of", help="Add rows that are never written, up to a multiple (64, say)."),
    ] = None,
    seed: Seed = 0,
) -> Any:
    """Give a model the lexicon's target vocabulary and save it for transformers."""
    from tokalign_lab import catalog
    from tokalign_lab.alignment.lexicon import Lexicon
    from tokalign_lab.model.to_folder import check_choices, rearrange_to_folder

    table = Lexicon.load(lexicon)
    _check_out(out)
    texts = None if calibrate is None else [calibrate]
    check_choices(texts, keep_tied, pad_to_multiple_of)
    source_vocabulary = catalog.load_vocabulary(model)
    target_vocabulary = catalog.load_vocabulary(target or table.provenance["target"]["name"])
    with console.progress_bar("rearrange") as progress:
        done = rearrange_to_folder(
            model,
            table,
            source_vocabulary,
            target_vocabulary,
            out,
            seed=seed,
            keep_tied=keep_tied,
            pad_to_multiple_of=pad_to_multiple_of,
            calibrate=texts,
            progress=progress,
        )
    recipe = table.provenance["recipe"]
    result = {"model": str(out), **done, "recipe": recipe, "origins": table.origin_counts()}
    return result, lambda: console.print_facts(result)


@command(app, "bpb")
def bpb(
    model_dir: Annotated[str, typer.Argument(help="A model and its tokenizer: a folder, a name or a hub id.")],
    text: Text,
    max_bytes: MaxBytes = None,
    seed: Seed = 0,
    more_text: MoreText = None,
) -> Any:
    """Measure bits per UTF-8 byte of a text (its held-out part, where the text names one)."""
    from tokalign_lab import catalog
    from tokalign_lab.documents import part_of, read_documents
    from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
    from tokalign_lab.model.load import load_model

    documents = part_of(read_documents([*text, *(more_text or [])], max_bytes=max_bytes, seed=seed), "held_out")
    vocabulary, model = catalog.load_vocabulary(model_dir), load_model(model_dir)
    with console.progress_bar("bits per byte") as progress:
        result = bits_per_byte(model, vocabulary, documents, progress=progress).to_dict()
    return {"model": model_dir, **result}, lambda: console.print_facts(result, title=model_dir)


@command(app, "evaluate")
def evaluate(
    model_dir: Annotated[list[str], typer.Argument(help="Models and their tokenizers: folders, names or hub ids.")],
    tasks: Annotated[
        str, typer.Option("--tasks", help="'papers' for all six, or names with commas: arc-easy,boolq.")
    ] = "papers",
    shots: Annotated[str, typer.Option("--shots", help="Examples in the prompt, with commas.")] = "0,5",
    limit: Annotated[int | None, typer.Option("--limit", help="Score so many questions a task, drawn by seed.")] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="Also measure bits per byte of this text's held-out part.")
    ] = None,
    max_bytes: MaxBytes = None,
    seed: Seed = 0,
) -> Any:
    """Score models in the papers' six tasks (lm-evaluation-harness, validation sets), side by side."""
    from tokalign_lab import catalog
    from tokalign_lab.documents import check_sources, part_of, read_documents
    from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
    from tokalign_lab.evaluation.tasks import check_harness, score_tasks, task_names
    from tokalign_lab.model.load import load_model
    from tokalign_lab.progress import part

    names, numbers = task_names(tasks.split(",")), _numbers("--shots", shots)
    check_harness()
    for name in model_dir:
        catalog.model_folder(name)  # a model that is not there ends here, before another one is scored
    check_sources(text or [])
    documents = part_of(read_documents(text, max_bytes=max_bytes, seed=seed), "held_out") if text else None
    models = []
    for name in model_dir:
        vocabulary, model = catalog.load_vocabulary(name), load_model(name)
        with console.progress_bar(name) as progress:
            share = 0.9 if documents else 1.0
            scores = score_tasks(model, vocabulary, names, numbers, limit, seed, part(progress, 0.0, share))
            row: dict[str, Any] = {"model": name, **scores.to_dict()}
            if documents:
                measured = bits_per_byte(model, vocabulary, documents, progress=part(progress, share, 1.0))
                row["bits_per_byte"] = measured.bits_per_byte
        models.append(row)
    return {"seed": seed, "limit": limit, "models": models}, lambda: _show_tasks(models)


def _show_tasks(models: list[dict[str, Any]]) -> None:
    """Print a line a task and a column a model: acc with its standard error, and acc_norm where there is one."""
    lines = []
    for place, row in enumerate(models[0]["rows"]):
        line: dict[str, Any] = {key: row[key] for key in ("task", "shots", "n", "guess")}
        for model in models:
            score = model["rows"][place]
            line[model["model"]] = f"{score['acc']:.4f} ± {score['acc_stderr']:.4f}"
            if score["acc_norm"] is not None:
                line[model["model"]] += f" (norm {score['acc_norm']:.4f})"
        lines.append(line)
    for shots in models[0]["mean"]:
        of_these = [row["guess"] for row in models[0]["rows"] if row["shots"] == int(shots)]
        line = {"task": "mean", "shots": int(shots), "n": None, "guess": sum(of_these) / len(of_these)}
        lines.append(line | {model["model"]: f"{model['mean'][shots]:.4f}" for model in models})
    if "bits_per_byte" in models[0]:
        line = {"task": "bits per byte", "shots": None, "n": None, "guess": None}
        lines.append(line | {model["model"]: f"{model['bits_per_byte']:.4f}" for model in models})
    console.print_table(lines, title="acc ± standard error (acc_norm)")


def _numbers(option: str, written: str) -> list[int]:
    try:
        return [int(number) for number in written.split(",")]
    except ValueError:
        raise InputError(f"{option} is '{written}'; write whole numbers with commas, such as 0,5.") from None


@command(app, "generate")
def generate(
    teacher: Annotated[str, typer.Argument(help="The model that writes: a folder, a name or a hub id.")],
    text: Text,
    out: Annotated[Path, typer.Option("--out", help="Where the text goes, a .jsonl file that `adapt` takes.")],
    documents: Annotated[int, typer.Option("--documents", help="How many texts it writes.")],
    prompt_tokens: Annotated[int, typer.Option("--prompt-tokens", help="Tokens of the text each begins with.")] = 32,
    new_tokens: Annotated[int, typer.Option("--new-tokens", help="Tokens that it adds at most.")] = 96,
    temperature: Annotated[float, typer.Option("--temperature", help="Of sampling; 0 writes greedily.")] = 1.0,
    seed: Seed = 0,
    max_bytes: MaxBytes = None,
    more_text: MoreText = None,
) -> Any:
    """Let a teacher continue beginnings of a text, for sentence-level distillation; started again, it goes on."""
    from tokalign_lab import catalog
    from tokalign_lab.adaptation.teacher_text import WritingSettings, write_text
    from tokalign_lab.documents import read_documents, split_documents
    from tokalign_lab.model.load import load_model

    settings = WritingSettings(documents, prompt_tokens, new_tokens, temperature, seed)
    _check_out(out, suffix=".jsonl")
    read = read_documents([*text, *(more_text or [])], max_bytes=max_bytes, seed=seed)
    train, held_out = split_documents(read, seed=seed)
    vocabulary, model = catalog.load_vocabulary(teacher), load_model(teacher)
    with console.progress_bar("generate") as progress:
        written = write_text(model, vocabulary, train, held_out, settings, out, progress=progress)
    result = {"text": str(out), "teacher": teacher, "documents": documents, "bytes": written, "seed": seed}
    return result, lambda: console.print_facts(result)


@command(app, "adapt")
def adapt(
    model_dir: Annotated[str, typer.Argument(help="The rearranged model: a folder, a name or a hub id.")],
    text: Text,
    run: Annotated[Path, typer.Option("--run", help="The run folder; it must not hold another run.")],
    steps: Annotated[int, typer.Option("--steps", help="Optimiser steps of both stages together.")],
    seed: Seed = 0,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Sequences a step.")] = None,
    sequence_length: Annotated[int | None, typer.Option("--sequence-length", help="Tokens a sequence.")] = None,
    stage1_share: Annotated[
        float | None, typer.Option(help="Share of steps that tune embeddings and head only.")
    ] = None,
    learning_rate_stage1: Annotated[float | None, typer.Option(help="Peak learning rate of stage 1.")] = None,
    learning_rate_stage2: Annotated[float | None, typer.Option(help="Peak learning rate of stage 2.")] = None,
    gradient_accumulation_steps: Annotated[int | None, typer.Option(help="Batches a step.")] = None,
    mix: Annotated[
        list[str] | None,
        typer.Option("--mix", help="A slice and a factor on how often its text comes, as de=2. May be repeated."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Above 1, small slices of the text come more often than their size says.")
    ] = None,
    cross_documents: Annotated[
        bool | None,
        typer.Option("--cross-documents/--documents-apart", help="Whether attention and loss cross documents."),
    ] = None,
    bf16: Annotated[
        bool | None, typer.Option("--bf16/--no-bf16", help="Compute in bfloat16; by default where the GPU can.")
    ] = None,
    gradient_checkpointing: Annotated[
        bool | None, typer.Option("--gradient-checkpointing", help="Less memory, a third more work.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="Learn from this model's predictions too; it must have the same tokenizer (see `generate`)."),
    ] = None,
    distillation_weight: Annotated[
        float | None, typer.Option(help="Of the divergence from the teacher beside the next-token loss.")
    ] = None,
    distillation_temperature: Annotated[float | None, typer.Option(help="Softens both distributions.")] = None,
    distillation_direction: Annotated[
        str | None, typer.Option(help="forward: KL(teacher || student); reverse: KL(student || teacher).")
    ] = None,
    distillation_share: Annotated[
        float | None, typer.Option(help="Share of the sequences that the teacher is asked about.")
    ] = None,
    distillation_top_k: Annotated[
        int | None,
        typer.Option(help="Keep so many of the teacher's best tokens before the first step; 0: it reads along."),
    ] = None,
    evaluate_every: Annotated[int | None, typer.Option(help="Steps between measurements.")] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the best one here by default.")] = None,
    processes: Annotated[
        int | None, typer.Option(help="Processes on this machine that share the work, one a GPU.")
    ] = None,
    accelerate_config: Annotated[
        Path | None, typer.Option(help="Start by accelerate launch with this configuration (docs/scale.md).")
    ] = None,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only make the run folder; it is started by hand (docs/scale.md).")
    ] = False,
    max_bytes: MaxBytes = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as the job has started.")] = False,
    more_text: MoreText = None,
) -> Any:
    """Tune a model in two stages, with or without a teacher, in a process of its own; Ctrl-C leaves it running."""
    from tokalign_lab import catalog
    from tokalign_lab.adaptation.settings import AdaptSettings
    from tokalign_lab.documents import check_sources
    from tokalign_lab.model.device import pick_device
    from tokalign_lab.runs.control import start
    from tokalign_lab.runs.folder import RunFolder

    given = {
        "steps": steps,
        "seed": seed,
        "batch_size": batch_size,
        "sequence_length": sequence_length,
        "stage1_share": stage1_share,
        "learning_rate_stage1": learning_rate_stage1,
        "learning_rate_stage2": learning_rate_stage2,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "mix": _weights(mix) if mix else None,
        "temperature": temperature,
        "cross_documents": cross_documents,
        "bf16": bf16,
        "gradient_checkpointing": gradient_checkpointing,
        "evaluate_every": evaluate_every,
        "save_every": save_every,
        "teacher": teacher,
        "distillation_weight": distillation_weight,
        "distillation_temperature": distillation_temperature,
        "distillation_direction": distillation_direction,
        "distillation_share": distillation_share,
        "distillation_top_k": distillation_top_k,
    }
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    text = [*text, *(more_text or [])]
    AdaptSettings.from_dict(settings)
    catalog.model_folder(model_dir)  # a model that is not there ends here, before a run is made
    catalog.load_tokenizer(model_dir)
    if teacher:
        from tokalign_lab.adaptation.teacher import check_same_tokenizer

        catalog.model_folder(teacher)
        check_same_tokenizer(catalog.load_vocabulary(teacher), catalog.load_vocabulary(model_dir))
        settings["teacher"] = _resolved(teacher)
    check_sources(text)
    if device is not None:
        pick_device(device)
    settings |= {
        "model": _resolved(model_dir),
        "text": [_resolved(one) for one in text],
        "max_bytes": max_bytes,
    }
    config = None if accelerate_config is None else str(accelerate_config.resolve())
    how = {"device": device, "processes": processes, "accelerate_config": config}
    settings |= {name: value for name, value in how.items() if value is not None}
    if prepare:
        folder = RunFolder.create(run, "adapt", settings)
        return _summary(folder)
    return _follow(start("adapt", settings, run), detach)


Root = Annotated[Path | None, typer.Option("--root", help="Folder of the runs.")]


@command(runs_app, "list")
def runs_list(
    root: Root = None,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="List the recorded runs that ship with the package instead.")
    ] = False,
) -> Any:
    """List the runs, newest first."""
    from tokalign_lab.runs.control import list_runs
    from tokalign_lab.runs.gallery import recorded_runs

    found = recorded_runs() if recorded else list_runs(root)
    keys = ("name", "kind", "state", "pid", "created", "ended", "error")
    rows = [
        {**{key: run.info()[key] for key in keys}, "title": run.title, "recorded": run.recorded, "path": str(run.path)}
        for run in found
    ]
    shown = [{"name": row["name"], "title": row["title"], **{k: row[k] for k in keys[1:]}} for row in rows]

    def show() -> None:
        console.print_table(shown, title="Recorded runs that ship with the package" if recorded else "")
        if not rows:
            console.stdout.print("No runs here yet; `tokalign-lab gallery list` has recorded ones.", soft_wrap=True)

    return {"runs": rows}, show


@command(gallery_app, "list")
def gallery_list() -> Any:
    """Say which recorded runs there are, when and how they were made, and what is not in them."""
    from tokalign_lab.runs.commands import command_of
    from tokalign_lab.runs.control import gallery_root
    from tokalign_lab.runs.gallery import recorded_runs, recorded_words

    rows = [
        {"name": run.name, "title": run.title, "words": recorded_words(info), "command": command_of(info)}
        for run in recorded_runs()
        for info in (run.info(),)
    ]

    def show() -> None:
        console.print_table([{key: row[key] for key in ("name", "title", "command")} for row in rows])
        for words in dict.fromkeys(row["words"] for row in rows):
            console.stdout.print(words, soft_wrap=True, markup=False)

    return {"gallery": str(gallery_root()), "runs": rows}, show


@command(gallery_app, "record")
def gallery_record(
    out: Annotated[Path, typer.Option("--out", help="Folder of the gallery; what is there is replaced at the end.")],
    work: Annotated[
        Path, typer.Option("--work", help="Folder for the runs themselves, 2 GB; started again, it goes on there.")
    ] = Path("gallery-runs"),
    steps: Annotated[int, typer.Option("--steps", help="Optimiser steps of both tunings.")] = 200,
) -> Any:
    """Make the gallery anew: align, rearrange and tune the default pair for real, and pack what panels show."""
    from tokalign_lab.record import record_gallery

    with console.progress_bar("record") as progress:
        result = record_gallery(out, work, steps, progress)
    return result, lambda: console.print_facts(result)


Run = Annotated[str, typer.Argument(help="A run's name or its folder.")]


@command(runs_app, "watch")
def runs_watch(run: Run) -> Any:
    """Follow a run until it ends; Ctrl-C stops watching, not the run."""
    from tokalign_lab.runs.control import find_run

    return _follow(find_run(run), detach=False)


@command(runs_app, "cancel")
def runs_cancel(run: Run) -> Any:
    """Stop a run; what it had reached stays in its folder."""
    from tokalign_lab.runs.control import find_run

    folder = find_run(run)
    folder.cancel()
    return _summary(folder)


@command(runs_app, "resume")
def runs_resume(
    run: Run,
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as it has started.")] = False,
) -> Any:
    """Go on with a run that was cancelled, failed or killed, from its last checkpoint."""
    from tokalign_lab.runs.control import find_run

    folder = find_run(run)
    folder.resume()
    return _follow(folder, detach)


@command(runs_app, "pause")
def runs_pause(run: Run) -> Any:
    """Stop a run when the step that runs is done and kept; `runs resume` goes on from there."""
    from tokalign_lab.runs.control import find_run

    folder = find_run(run)
    folder.request_pause()
    folder.wait()
    return _summary(folder)


@command(runs_app, "again")
def runs_again(
    run: Run,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of tuning and its value, as steps=400. Repeatable.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What the new run is called.")] = "",
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as it has started.")] = False,
) -> Any:
    """Start a new tuning run with the settings of an earlier one, some of them changed."""
    from tokalign_lab.runs.control import find_run, start_again

    return _follow(start_again(find_run(run), _settings(change or []), name), detach)


@command(runs_app, "rename")
def runs_rename(run: Run, name: Annotated[str, typer.Argument(help="What the run shall be called.")]) -> Any:
    """Give a run another name; its folder keeps its own."""
    from tokalign_lab.runs.control import find_run, rename_run

    folder = find_run(run)
    rename_run(folder, name)
    return _summary(folder)


@command(runs_app, "delete")
def runs_delete(run: Run) -> Any:
    """Move a run into the trash beside it; `runs restore` takes it back."""
    from tokalign_lab.runs.control import find_run
    from tokalign_lab.runs.trash import delete_run

    return _summary(delete_run(find_run(run)))


@command(runs_app, "restore")
def runs_restore(
    run: Annotated[str | None, typer.Argument(help="Which; the one deleted last by default.")] = None,
    root: Root = None,
) -> Any:
    """Take a run back out of the trash."""
    from tokalign_lab.runs.trash import restore_run

    return _summary(restore_run(run, root))


@command(runs_app, "trash")
def runs_trash(
    empty: Annotated[bool, typer.Option("--empty", help="Remove them for good.")] = False, root: Root = None
) -> Any:
    """Say which runs are in the trash and how many bytes they hold."""
    from tokalign_lab.runs.trash import deleted_runs, empty_trash, trash_bytes

    names = [run.title for run in deleted_runs(root)]
    result = {"runs": names, "bytes": empty_trash(root) if empty else trash_bytes(root)}
    return result, lambda: console.print_facts(result, title="Removed for good" if empty else "In the trash")


@command(app, "demo")
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the table, the report and the model.")] = Path("demo"),
    fast: Annotated[
        bool, typer.Option("--fast", help="A few minutes instead of twenty, with rougher figures.")
    ] = False,
    seed: Seed = 0,
) -> Any:
    """Run the whole pipeline on the packaged model and write one table and one HTML report."""
    from tokalign_lab.demo import run_demo

    with console.progress_bar("demo") as progress:
        result = run_demo(out, fast=fast, seed=seed, progress=progress)

    def show() -> None:
        console.print_facts(result["pair"], title="The pair")
        lexicons = result["lexicons"]
        scores = [{"score": name, **{row["recipe"]: row[name] for row in lexicons}} for name in lexicons[0]][1:]
        console.print_table(scores, title="The lexicons, on held-out text")
        console.print_table(result["models"], title="Bits per byte on held-out text")
        console.print_facts(result["seconds"], title="Seconds")
        console.stdout.print(f"Report: {result['report']}", soft_wrap=True)

    return result, show


@command(app, "report")
def report(
    run: Annotated[str, typer.Argument(help="An alignment that has finished: a run's name or its folder.")],
    tuned: Annotated[
        list[str] | None, typer.Option("--tuned", help="A tuning run that followed from it. May be repeated.")
    ] = None,
    floor: Annotated[str | None, typer.Option("--floor", help="A measure run of the source model.")] = None,
    out: Annotated[Path, typer.Option("--out", help="The HTML file.")] = Path("report.html"),
) -> Any:
    """Write one HTML file about an alignment and what was tuned from it; it needs no network to be read."""
    from tokalign_lab.run_report import write_run_report
    from tokalign_lab.runs.control import find_run

    _check_out(out, suffix=".html")
    followed = [find_run(name) for name in tuned or []]
    path = write_run_report(out, find_run(run), followed, None if floor is None else find_run(floor))
    return {"report": str(path)}, lambda: console.stdout.print(f"Report: {path}", soft_wrap=True)


@command(app, "app")
def serve_app(
    runs: Annotated[Path, typer.Option("--runs", help="Folder of the runs and of the view.")] = Path("runs"),
    port: Annotated[int, typer.Option("--port", help="Port to listen on.")] = 8866,
    ip: Annotated[str, typer.Option("--ip", help="Address to listen on; by default this machine only.")] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only serve.")] = False,
) -> Any:
    """Serve the lab as a page of its own, behind a token, for people without notebooks."""
    from tokalign_lab.app import serve

    code = serve(runs, port, ip, browser=not no_browser, say=partial(console.stderr.print, soft_wrap=True))
    return {"exit_code": code}, lambda: None


@command(app, "doctor")
def doctor() -> Any:
    """Say what is installed, which device will be used, and what is missing."""
    from tokalign_lab.doctor import examine

    result = examine()

    def show() -> None:
        console.print_facts(result["system"], title="System")
        console.print_table(result["packages"], title="Packages")
        console.print_table(result["assets"], title="Default assets")
        for sentence in result["missing"] or ["Nothing is missing."]:
            console.stdout.print(sentence, soft_wrap=True)

    return result, show


def _follow(folder: Any, detach: bool) -> Any:
    if not detach:
        try:
            with console.progress_bar(folder.name) as progress:
                folder.wait(progress=progress)
        except KeyboardInterrupt:
            console.stderr.print(
                f"The run goes on; `tokalign-lab runs watch {folder.path}` follows it, `runs cancel` stops it."
            )
            raise
    result, show = _summary(folder)
    if result["state"] == "failed":
        raise InputError(f"The run {folder.name} failed: {result['error']}")
    return result, show


def _summary(folder: Any) -> Any:
    info, steps, evaluations = folder.reconcile(), folder.curve(), folder.curve("evaluation")
    result = {
        "run": str(folder.path),
        "name": info["name"],
        "title": folder.title,
        "recorded": folder.recorded,
        "state": info["state"],
        "pid": info["pid"],
        "error": info["error"],
        "steps": len(steps),
        "loss": steps[-1]["loss"] if steps else None,
        "bits_per_byte": evaluations[-1]["bits_per_byte"] if evaluations else None,
    }
    return result, lambda: console.print_facts(result)


def _settings(given: list[str]) -> dict[str, Any]:
    """Read `steps=400` and its like; a value is JSON (400, 1e-4, true), else text."""
    settings = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not name or not equals:
            raise InputError(f"--set is {one!r}; write a setting and its value, as steps=400.")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


def _weights(given: list[str]) -> dict[str, float]:
    """Read `de=2` and its like."""
    weights = {}
    for one in given:
        name, _, factor = one.rpartition("=")
        try:
            weights[name] = float(factor)
        except ValueError:
            name = ""
        if not name:
            raise InputError(f"--mix is {one!r}; write a slice and a factor, as de=2.")
    return weights


def _check_out(out: Path, suffix: str = "") -> None:
    """Find out before the work, not after it, that its result could not be written."""
    if suffix and out.suffix != suffix:
        raise InputError(f"--out is '{out}', but the result is a {suffix} file; name it so.")
    if not suffix and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"'{out}' exists already and is not empty; choose another --out or remove it.")
    parent = out.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not os.access(parent, os.W_OK):
        raise InputError(f"'{parent}' cannot be written to; choose another --out.")


def _resolved(name: str) -> str:
    """Make a relative path absolute, because a run's process may be resumed from another folder."""
    from tokalign_lab import catalog

    return str(Path(name).resolve()) if not catalog.is_known(name) and Path(name).exists() else name


def main() -> None:
    """Run the command line; the console script `tokalign-lab`."""
    # A cache line must not be mistaken for a result, and a hub is asked only for what the user named.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    sys.exit(app())


if __name__ == "__main__":
    main()
