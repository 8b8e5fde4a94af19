"""What a run can do: a name and a function that takes plain JSON settings.

The functions import what they need when they are called, so that a worker reports itself before torch is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokalign_lab.errors import InputError
from tokalign_lab.files import write_json
from tokalign_lab.progress import part

if TYPE_CHECKING:
    from tokalign_lab.documents import Document
    from tokalign_lab.runs.worker import RunContext

Kind = Callable[[dict[str, Any], "RunContext"], None]


def align_kind(settings: dict[str, Any], context: RunContext) -> None:
    """Align two tokenizers on a text; writes `alignment/` and `scores.json`.

    Settings: source, target, text (list), and optionally recipe, overlap (by default the recipe's own), seed,
    max_bytes, one_to_one, model (the source model) and donor (a model with the target tokenizer) by name.
    """
    from tokalign_lab.alignment.recipes import align
    from tokalign_lab.alignment.registry import check_recipe
    from tokalign_lab.catalog import load_vocabulary
    from tokalign_lab.corpus import tokenize_pair
    from tokalign_lab.evaluation.held_out import held_out_precision
    from tokalign_lab.evaluation.lexicon_scores import score_lexicon
    from tokalign_lab.model.load import load_model
    from tokalign_lab.vocabulary import overlap as shared_by_either

    optional = {"recipe", "overlap", "seed", "max_bytes", "one_to_one", "model", "donor"}
    _check(settings, "align", {"source", "target", "text"}, optional)
    seed, recipe = int(settings.get("seed", 0)), settings.get("recipe", "anchored")
    one_to_one, overlap = bool(settings.get("one_to_one", False)), settings.get("overlap")
    method = check_recipe(recipe, settings.get("model"), settings.get("donor"), one_to_one, overlap)
    source, target = load_vocabulary(settings["source"]), load_vocabulary(settings["target"])
    train, held_out = _split_text(settings)
    pair = tokenize_pair(source, target, train, progress=part(context.progress, 0.0, 0.2))
    model = load_model(settings["model"]) if method.needs_model else None
    donor = (load_model(settings["donor"]), load_vocabulary(settings["donor"])) if method.needs_donor else None
    alignment = align(
        pair,
        recipe=recipe,
        seed=seed,
        overlap=overlap,
        progress=part(context.progress, 0.2, 0.7),
        model=model,
        donor=donor,
        one_to_one=one_to_one,
    )
    alignment.save(context.folder.path / "alignment")
    shared = shared_by_either(source, target)
    values: dict[str, Any] = {
        "overlap": {"raw": shared.raw_share, "bytes": shared.bytes_share},
        "seconds": alignment.seconds,
    }
    # A text that is too small to be scored has been aligned all the same.
    with suppress(InputError):
        held_out_pair = tokenize_pair(source, target, held_out)
        scoring = part(context.progress, 0.7, 0.85)
        scores = score_lexicon(alignment.lexicon, held_out_pair, progress=scoring)
        values["lexicon"] = scores.to_dict()
        alignment.lexicon.provenance["scores"] = scores.means()
        alignment.lexicon.save(context.folder.path / "alignment" / "lexicon.parquet")
    if alignment.source_vectors is not None:
        with suppress(InputError):
            testing = part(context.progress, 0.85, 1.0)
            values["held_out"] = held_out_precision(pair, recipe, seed, progress=testing, model=model).to_dict()
    write_json(context.folder.path / "scores.json", values)
    context.emit({"kind": "scores", **values})
    context.progress(1.0, "aligned")


def rearrange_kind(settings: dict[str, Any], context: RunContext) -> None:
    """Give a model the lexicon's target vocabulary; writes a model folder.

    Settings: model, lexicon (path of a `.parquet`), and optionally out (default `model` in the run folder), seed,
    keep_tied, pad_to_multiple_of, calibrate (a list of texts to calibrate the output on).
    """
    from tokalign_lab.alignment.lexicon import Lexicon
    from tokalign_lab.catalog import load_vocabulary
    from tokalign_lab.model.to_folder import check_choices, rearrange_to_folder

    optional = {"out", "seed", "keep_tied", "pad_to_multiple_of", "calibrate"}
    _check(settings, "rearrange", {"model", "lexicon"}, optional)
    keep_tied, multiple = bool(settings.get("keep_tied", False)), settings.get("pad_to_multiple_of")
    check_choices(settings.get("calibrate"), keep_tied, multiple)
    lexicon = Lexicon.load(Path(settings["lexicon"]))
    rearrange_to_folder(
        settings["model"],
        lexicon,
        load_vocabulary(lexicon.provenance["source"]["name"]),
        load_vocabulary(lexicon.provenance["target"]["name"]),
        Path(settings.get("out") or context.folder.path / "model"),
        seed=int(settings.get("seed", 0)),
        keep_tied=keep_tied,
        pad_to_multiple_of=multiple,
        calibrate=settings.get("calibrate"),
        progress=context.progress,
    )


def adapt_kind(settings: dict[str, Any], context: RunContext) -> None:
    """Tune a model in two stages; writes checkpoints and `model/`.

    Settings: model, text (list), and any field of `adaptation.settings.AdaptSettings`, of which `teacher` makes it a
    run of token-level distillation; optionally max_bytes, device, and how the worker was started (processes,
    accelerate_config; see `runs.process.launcher`).
    """
    from tokalign_lab.adaptation.settings import AdaptSettings
    from tokalign_lab.adaptation.train import adapt

    settings = dict(settings)
    missing = sorted({"model", "text"} - settings.keys())
    if missing:
        raise InputError(f"An adapt run needs the setting {missing[0]!r}.")
    model, text = settings.pop("model"), settings.pop("text")
    max_bytes, device = settings.pop("max_bytes", None), settings.pop("device", None)
    for name in ("processes", "accelerate_config"):
        settings.pop(name, None)
    adapt(
        model,
        text,
        AdaptSettings.from_dict(settings),
        context.folder.path,
        emit=context.emit,
        interrupt=context.interrupt,
        resume=context.resume,
        max_bytes=max_bytes,
        device=device,
    )


def project_kind(settings: dict[str, Any], context: RunContext) -> None:
    """Lay out saved token vectors on a plane; the result goes to the cache of `tokalign_lab.projection`.

    Settings: vectors (list of `.npz` paths), and optionally method, shared, fit_on, seed.
    """
    from tokalign_lab.projection import FIT_ON, project
    from tokalign_lab.vectors.token_vectors import TokenVectors

    _check(settings, "project", {"vectors"}, {"method", "shared", "fit_on", "seed"})
    project(
        [TokenVectors.load(Path(path)) for path in settings["vectors"]],
        settings.get("method", "umap"),
        bool(settings.get("shared", False)),
        int(settings.get("fit_on", FIT_ON)),
        int(settings.get("seed", 0)),
        progress=context.progress,
    )
    context.progress(1.0, "laid out")


def measure_kind(settings: dict[str, Any], context: RunContext) -> None:
    """Measure a model with its own tokenizer on the text that an adapt run of these settings holds out.

    Settings: model, text (list), and optionally max_bytes, device, seed, held_out_share, evaluate_bytes as for
    "adapt"; emits one `evaluation` event. The source model's figure is the floor that tuning comes back to.
    """
    from tokalign_lab.adaptation.settings import AdaptSettings
    from tokalign_lab.catalog import load_vocabulary
    from tokalign_lab.device import pick_device
    from tokalign_lab.documents import excerpts, read_documents, split_documents
    from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
    from tokalign_lab.model.load import load_model

    _check(
        settings,
        "measure",
        {"model", "text"},
        {"max_bytes", "device", "seed", "held_out_share", "evaluate_bytes"},
    )
    chosen = AdaptSettings.from_dict(
        {k: v for k, v in settings.items() if k in ("seed", "held_out_share", "evaluate_bytes")}
    )
    documents = read_documents(settings["text"], max_bytes=settings.get("max_bytes"), seed=chosen.seed)
    _, held_out = split_documents(documents, chosen.held_out_share, chosen.seed)
    model = load_model(settings["model"], device=pick_device(settings.get("device")))
    measured = excerpts(held_out, chosen.evaluate_bytes, seed=chosen.seed)
    result = bits_per_byte(model, load_vocabulary(settings["model"]), measured, progress=context.progress)
    context.emit(
        {
            "kind": "evaluation",
            "step": 0,
            "bits_per_byte": result.bits_per_byte,
            "by_slice": result.by_slice,
            "bytes": result.bytes,
        }
    )


def score_kind(settings: dict[str, Any], context: RunContext) -> None:
    """Score a lexicon, and parts of it, on the text that its align run held out; writes `scores.json`.

    Settings: lexicon (path), text (list), and optionally max_bytes and seed (those of the align run, so that the same
    text is held out), before (path of the lexicon without the edits, to compare with), parts (path of a JSON file
    {name: target ids}), encoder (None: neither sentence score nor BERTScore), twins (False: no P@1) and model (the
    source model, for the P@1 of recipes that read it).
    """
    import numpy as np

    from tokalign_lab.alignment.lexicon import Lexicon
    from tokalign_lab.catalog import load_vocabulary
    from tokalign_lab.corpus import tokenize_pair
    from tokalign_lab.evaluation.held_out import held_out_precision
    from tokalign_lab.evaluation.part_scores import score_parts
    from tokalign_lab.model.load import load_model

    optional = {"max_bytes", "seed", "before", "parts", "encoder", "twins", "model"}
    _check(settings, "score", {"lexicon", "text"}, optional)
    seed = int(settings.get("seed", 0))
    lexicon = Lexicon.load(Path(settings["lexicon"]))
    before = Lexicon.load(Path(settings["before"])) if settings.get("before") else None
    parts = _read_parts(settings.get("parts"))
    source, target = (load_vocabulary(lexicon.provenance[side]["name"]) for side in ("source", "target"))
    train, held_out = _split_text(settings)
    pair = tokenize_pair(source, target, held_out, progress=part(context.progress, 0.0, 0.05))
    hidden = None
    if settings.get("twins", True):
        with suppress(InputError):  # a recipe without vectors, or too little text, has no P@1 and still has scores
            training = tokenize_pair(source, target, train, progress=part(context.progress, 0.05, 0.15))
            model = load_model(settings["model"]) if settings.get("model") else None
            testing = part(context.progress, 0.15, 0.4)
            recipe = lexicon.provenance["recipe"]
            hidden = held_out_precision(training, recipe, seed, progress=testing, model=model).hidden
    scores = score_parts(
        lexicon,
        pair,
        {"all": None, **{name: np.array(ids, np.int64) for name, ids in parts.items()}},
        before=before,
        encoder=settings.get("encoder", "minilm"),
        hidden=hidden,
        seed=seed,
        progress=part(context.progress, 0.4, 1.0),
    )
    write_json(context.folder.path / "scores.json", scores.to_dict())
    context.progress(1.0, "scored")


KINDS: dict[str, Kind] = {
    "align": align_kind,
    "rearrange": rearrange_kind,
    "adapt": adapt_kind,
    "project": project_kind,
    "measure": measure_kind,
    "score": score_kind,
}


def check_kind(kind: str) -> None:
    """Raise `InputError` when there is no such kind of run."""
    if kind not in KINDS:
        raise InputError(f"There is no kind of run named {kind!r}; the kinds are {', '.join(sorted(KINDS))}.")


def run_kind(kind: str, settings: dict[str, Any], context: RunContext) -> None:
    """Do the work of one run, in this process."""
    check_kind(kind)
    KINDS[kind](settings, context)


def _check(settings: dict[str, Any], kind: str, needed: set[str], optional: set[str]) -> None:
    missing = sorted(needed - settings.keys())
    if missing:
        raise InputError(f"A run of kind {kind!r} needs the setting {missing[0]!r}.")
    unknown = sorted(settings.keys() - needed - optional)
    if unknown:
        known = ", ".join(sorted(needed | optional))
        raise InputError(f"A run of kind {kind!r} has no setting {unknown[0]!r}; it takes {known}.")


def _split_text(settings: dict[str, Any]) -> tuple[list[Document], list[Document]]:
    """Read the text of a run's settings; what is learned from, and what is held out."""
    from tokalign_lab.documents import read_documents, split_documents

    seed = int(settings.get("seed", 0))
    return split_documents(read_documents(settings["text"], settings.get("max_bytes"), seed), seed=seed)


def _read_parts(path: str | None) -> dict[str, list[int]]:
    if path is None:
        return {}
    try:
        return {str(name): [int(i) for i in ids] for name, ids in json.loads(Path(path).read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"'{path}' is no JSON file of {{part: target ids}} ({type(error).__name__}).") from error
