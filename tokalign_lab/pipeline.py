"""The stages of the pipeline: read, split, tokenize, align, score, rearrange, calibrate, measure, tune.

Runs, the command line, the demo and the recording call these functions; each takes the settings of its stage. Modules
that need torch are imported inside the functions, so that bad input is refused first.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.recipes import Alignment, align
from tokalign_lab.alignment.registry import RECIPES, check_recipe
from tokalign_lab.catalog import load_vocabulary, model_folder
from tokalign_lab.corpus import TokenizedPair, tokenize_pair
from tokalign_lab.device import pick_device
from tokalign_lab.disjoint import check_not_aligned_on, check_not_tuned_on
from tokalign_lab.documents import Document, check_sources, excerpts, read_documents, read_parts
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation import part_scores
from tokalign_lab.evaluation.breakdown import breakdown, held_out_by_group
from tokalign_lab.evaluation.comparison import PairedScore, paired_scores
from tokalign_lab.evaluation.held_out import HeldOutPrecision, held_out_precision
from tokalign_lab.evaluation.lexicon_scores import LexiconScores, score_lexicon
from tokalign_lab.progress import Progress, part, silent
from tokalign_lab.settings.kinds import (
    AdviseSettings,
    AlignSettings,
    BitsSettings,
    CompareSettings,
    ExtendTokenizerSettings,
    MeasureSettings,
    PartScoreSettings,
    RearrangeSettings,
    ScoreSettings,
    TextSettings,
    TrainTokenizerSettings,
)
from tokalign_lab.vectors.formats import load_vectors
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import Vocabulary, overlap

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tokalign_lab.adaptation.settings import AdaptRunSettings
    from tokalign_lab.evaluation.advice import Advice
    from tokalign_lab.evaluation.bits_per_byte import BitsPerByte


class PairText:
    """The source and target vocabularies and a text; its parts are tokenized on first use.

    `train` and `held_out` are the documents of the two parts (see `split_documents`).
    """

    def __init__(self, source: Vocabulary, target: Vocabulary, settings: TextSettings) -> None:
        self.source, self.target = source, target
        self.train, self.held_out = read_parts(settings)
        self._pairs: dict[str, TokenizedPair] = {}
        self._models: dict[str, PreTrainedModel] = {}
        self._vectors: tuple[TokenVectors, TokenVectors] | None = None

    def train_pair(self, progress: Progress = silent) -> TokenizedPair:
        """Return the train part in both tokenizations."""
        return self._pair("train", self.train, progress)

    def held_out_pair(self, progress: Progress = silent) -> TokenizedPair:
        """Return the held-out part in both tokenizations."""
        return self._pair("held_out", self.held_out, progress)

    def model(self, name: str | None) -> PreTrainedModel | None:
        """Load a model on the first call; None for None."""
        if name is not None and name not in self._models:
            from tokalign_lab.model.load import load_model  # imports torch, which most recipes do not need

            self._models[name] = load_model(name)
        return None if name is None else self._models[name]

    def source_model(self, name: str | None) -> PreTrainedModel | None:
        """Load the source model as `model`; raises `InputError` if it has another tokenizer than the source."""
        if name is not None and load_vocabulary(name).fingerprint != self.source.fingerprint:
            raise InputError(
                f"The model {name!r} has another tokenizer than the source {self.source.name!r}, so its rows are of "
                "other tokens; give the model that has the source tokenizer."
            )
        return self.model(name)

    def vectors(self, settings: AlignSettings) -> tuple[TokenVectors, TokenVectors] | None:
        """Load the token vectors that the settings name, on the first call; None if they name none.

        Raises `InputError` if a file has no vectors of its side's tokenizer.
        """
        if settings.vectors and self._vectors is None:
            source, target = settings.vectors
            self._vectors = load_vectors(Path(source), self.source), load_vectors(Path(target), self.target)
        return self._vectors

    def _pair(self, name: str, documents: list[Document], progress: Progress) -> TokenizedPair:
        if name not in self._pairs:
            self._pairs[name] = tokenize_pair(self.source, self.target, documents, progress=progress)
        return self._pairs[name]


def advise(settings: AdviseSettings, progress: Progress = silent) -> Advice:
    """Estimate whether a swap is worth it on a text: count tokens, time a step of generation, apply the rules.

    Raises `InputError` if the model, the tokenizer or the text cannot be used, or the model and the new head do not
    fit in free memory.
    """
    from tokalign_lab.evaluation.advice import Sizes, count_text
    from tokalign_lab.evaluation.advice import advise as judge
    from tokalign_lab.evaluation.head import longest_input
    from tokalign_lab.evaluation.step_time import time_step
    from tokalign_lab.model.load import load_model, load_outline
    from tokalign_lab.model.sizes import check_memory, weights_and_bytes

    check_sources(settings.text)
    device = pick_device(settings.device)
    source, target = load_vocabulary(settings.model), load_vocabulary(settings.target)
    outline = load_outline(settings.model)
    (old, old_bytes), (new, new_bytes) = weights_and_bytes(outline), weights_and_bytes(outline, target.size)
    check_memory(settings.model, outline, target.size, device)
    documents = read_documents(settings.text, settings.max_bytes, settings.seed)
    text = count_text(tokenize_pair(source, target, documents, progress=part(progress, 0.0, 0.5)))
    progress(0.5, "timing a step of generation")
    model = load_model(settings.model, device=device)
    context = longest_input(model)
    step = time_step(model, target.size)
    return judge(settings.model, settings.target, text, step, Sizes(old, new, old_bytes, new_bytes), context)


def train_tokenizer(settings: TrainTokenizerSettings, out: Path) -> dict[str, Any]:
    """Train a tokenizer on the train part of a text and save it for `AutoTokenizer`.

    Returns "tokenizer" (the folder), "size", "added" (tokens that `like` does not have) and "slices": bytes and tokens
    of the held-out part, and its tokens by `like` if that is given (see `tokens_by_slice`). Raises `InputError` as
    `tokenizer_training.train`, or if `like` or the text cannot be used.
    """
    from tokalign_lab.tokenizer_training import train

    like = None if settings.like is None else load_vocabulary(settings.like)
    documents, held_out = read_parts(settings)
    made = train([document.text for document in documents], settings.size, like)
    return _save_new_tokenizer(made, like, held_out, out)


def extend_tokenizer(settings: ExtendTokenizerSettings, out: Path) -> dict[str, Any]:
    """Extend a tokenizer on the train part of a text and save it for `AutoTokenizer`.

    Returns the same as `train_tokenizer`, compared with the original tokenizer. Raises `InputError` as
    `tokenizer_training.extend`, or if the tokenizer or the text cannot be used.
    """
    from tokalign_lab.tokenizer_training import extend

    before = load_vocabulary(settings.tokenizer)
    documents, held_out = read_parts(settings)
    made = extend(before, [document.text for document in documents], settings.add)
    return _save_new_tokenizer(made, before, held_out, out)


def _save_new_tokenizer(
    made: PreTrainedTokenizerBase, before: Vocabulary | None, held_out: list[Document], out: Path
) -> dict[str, Any]:
    from tokalign_lab.evaluation.compression import tokens_by_slice
    from tokalign_lab.files import atomic_folder
    from tokalign_lab.model.save_tokenizer import for_prompts, save_tokenizer

    with atomic_folder(out) as folder:
        save_tokenizer(for_prompts(made), folder)
    after = load_vocabulary(str(out))
    old = {} if before is None else tokens_by_slice(before, held_out)
    slices: list[dict[str, Any]] = []
    for key, (n_bytes, tokens) in tokens_by_slice(after, held_out).items():
        slices.append({"slice": key, "bytes": n_bytes, "tokens": tokens, "bytes_per_token": n_bytes / tokens})
        if old:
            slices[-1] |= {"tokens_before": old[key][1], "saved": 1 - tokens / old[key][1]}
    known = set() if before is None else {before.raw_token(i) for i in range(before.size)}
    added = sum(after.raw_token(i) not in known for i in range(after.size))
    return {"tokenizer": str(out), "size": after.size, "added": added, "slices": slices}


def check_align(settings: AlignSettings) -> None:
    """Raise `InputError` for an unknown recipe or overlap, or an option that the recipe lacks or cannot use."""
    method = check_recipe(settings.recipe, settings.model, settings.donor, settings.one_to_one, settings.overlap)
    for name in ("vectors", "cluster"):
        if getattr(settings, name) and method.trains != "glove":
            fitting = ", ".join(recipe for recipe, one in RECIPES.items() if one.trains == "glove")
            raise InputError(f"The recipe '{settings.recipe}' trains no GloVe, so it cannot use {name}; {fitting} can.")
    for name in ("model", "donor"):
        if getattr(settings, name) and not getattr(method, f"needs_{name}"):
            fitting = ", ".join(recipe for recipe, one in RECIPES.items() if getattr(one, f"needs_{name}"))
            raise InputError(f"The recipe '{settings.recipe}' reads no {name}; leave it out, or use {fitting}.")
    if settings.vectors and len(settings.vectors) != 2:
        raise InputError(
            f"vectors names {len(settings.vectors)} files; name two, the source tokenizer's and the target's."
        )


def read_pair(settings: AlignSettings) -> PairText:
    """Load both vocabularies and read the text. Raises `InputError` if one of them cannot be used."""
    return PairText(load_vocabulary(settings.source), load_vocabulary(settings.target), settings)


def align_text(text: PairText, settings: AlignSettings, progress: Progress = silent) -> Alignment:
    """Align two vocabularies on the train part of a text.

    The lexicon's provenance stores how the text was split ("split"), so that scores hold out the same part. Raises
    `InputError` as `check_align`, or if the text, the model or the donor cannot be used.
    """
    check_align(settings)
    method = RECIPES[settings.recipe]
    pair = text.train_pair(part(progress, 0.0, 0.2))
    if settings.cluster:
        _count_on_cluster(pair, settings.cluster, part(progress, 0.2, 0.4))
    donor = text.model(settings.donor if method.needs_donor else None)
    done = align(
        pair,
        recipe=settings.recipe,
        seed=settings.seed,
        overlap=settings.overlap,
        progress=part(progress, 0.4 if settings.cluster else 0.2, 1.0),
        model=text.source_model(settings.model if method.needs_model else None),
        donor=None if donor is None else (donor, load_vocabulary(str(settings.donor))),
        one_to_one=settings.one_to_one,
        vectors=text.vectors(settings),
    )
    split = {name: getattr(settings, name) for name in TextSettings.names() if name != "text"}  # no paths
    done.lexicon.provenance["split"] = split
    return done


def score_alignment(
    text: PairText, done: Alignment, settings: AlignSettings, progress: Progress = silent
) -> dict[str, Any]:
    """Score a new alignment; the mean scores are added to the lexicon's provenance, for model cards.

    Returns "overlap", "seconds", "lexicon" (scores on the held-out part) and "held_out" (P@1 of held-out shared
    tokens). The last two are missing if the text is too small, "held_out" also if the recipe compares no vectors.
    """
    shared, seed, vectors = overlap(text.source, text.target), settings.seed, text.vectors(settings)
    found = {"overlap": {"raw": shared.raw_share, "bytes": shared.bytes_share}, "seconds": done.seconds}
    with suppress(InputError):  # a text can be too small to be scored
        scores = score_lexicon(done.lexicon, text.held_out_pair(), seed=seed, progress=part(progress, 0.0, 0.5))
        found["lexicon"] = scores.to_dict()
        done.lexicon.provenance["scores"] = scores.means()
    if done.source_vectors is not None:
        with suppress(InputError):
            hidden = measure_held_out(text, settings.recipe, seed, settings.model, part(progress, 0.5, 1.0), vectors)
            found["held_out"] = hidden.to_dict()
    return found


def measure_held_out(
    text: PairText,
    recipe: str,
    seed: int,
    model: str | None = None,
    progress: Progress = silent,
    vectors: tuple[TokenVectors, TokenVectors] | None = None,
) -> HeldOutPrecision:
    """Align the train part again without some shared tokens, and measure P@1 on them.

    Raises `InputError` for a recipe that compares no vectors, or too little text.
    """
    pair = text.train_pair(part(progress, 0.0, 0.3))
    reads = recipe in RECIPES and RECIPES[recipe].needs_model
    loaded = text.source_model(model if reads else None)
    return held_out_precision(pair, recipe, seed=seed, progress=part(progress, 0.3, 1.0), model=loaded, vectors=vectors)


def open_lexicon(path: Path | str) -> tuple[Lexicon, Vocabulary, Vocabulary]:
    """Load a lexicon, and the source and target vocabularies that it names.

    Raises `InputError` if there is no lexicon, or a vocabulary is no longer the one that was aligned.
    """
    lexicon = Lexicon.load(Path(path))
    source, target = (load_vocabulary(lexicon.provenance[side]["name"]) for side in ("source", "target"))
    lexicon.check(source, target)
    return lexicon, source, target


def score(
    settings: ScoreSettings, progress: Progress = silent
) -> tuple[LexiconScores, pd.DataFrame, tuple[HeldOutPrecision, pd.DataFrame] | None]:
    """Score a lexicon on the held-out part of a text; the means are stored in the lexicon's file if it is writable.

    Returns the scores, the scores by group of tokens, and, if requested, P@1 and P@1 by group. Raises `InputError` if
    the lexicon, the text or the encoder cannot be used, or P@1 is requested for a recipe without vectors.
    """
    lexicon, source, target = open_lexicon(settings.lexicon)
    text = PairText(source, target, settings)
    check_not_aligned_on(lexicon, settings.lexicon, settings, text.held_out)
    held_out, seed = text.held_out_pair(), settings.seed
    until = 0.5 if settings.twins else 1.0
    scores = score_lexicon(lexicon, held_out, settings.encoder or None, seed=seed, progress=part(progress, 0.0, until))
    if os.access(Path(settings.lexicon).absolute().parent, os.W_OK):
        lexicon.provenance["scores"] = scores.means()
        lexicon.save(Path(settings.lexicon))
    groups = breakdown(lexicon, held_out, seed=seed)
    if not settings.twins:
        return scores, groups, None
    hidden = _measure_again(lexicon, text, settings, part(progress, until, 1.0))
    return scores, groups, (hidden, held_out_by_group(hidden, text.train_pair()))


def _measure_again(lexicon: Lexicon, text: PairText, settings: ScoreSettings, progress: Progress) -> HeldOutPrecision:
    """Call `measure_held_out` with the recipe of a lexicon."""
    made = lexicon.provenance
    if "vectors" in made["parameters"]:
        raise InputError("The lexicon was aligned with vectors from files, so P@1 is measured by its align run only.")
    return measure_held_out(text, made["recipe"], made["seed"], settings.model, progress)


def score_parts(settings: PartScoreSettings, progress: Progress = silent) -> part_scores.PartScores:
    """Score a whole lexicon and some of its rows on the held-out part of a text.

    Raises `InputError` if the lexicon, the text, the encoder or the file of parts cannot be used.
    """
    parts = _read_parts(settings.parts)
    before = None if settings.before is None else Lexicon.load(Path(settings.before))
    lexicon, source, target = open_lexicon(settings.lexicon)
    text = PairText(source, target, settings)
    check_not_aligned_on(lexicon, settings.lexicon, settings, text.held_out)
    held_out = text.held_out_pair(part(progress, 0.0, 0.05))
    found = None
    if settings.twins:
        with suppress(InputError):  # a recipe without vectors, or too little text, has no P@1 and still has scores
            found = _measure_again(lexicon, text, settings, part(progress, 0.05, 0.4)).hidden
    return part_scores.score_parts(
        lexicon,
        held_out,
        {"all": None, **{name: np.array(ids, np.int64) for name, ids in parts.items()}},
        before=before,
        encoder=settings.encoder or None,
        hidden=found,
        seed=settings.seed,
        progress=part(progress, 0.4, 1.0),
    )


def compare_scores(settings: CompareSettings, progress: Progress = silent) -> dict[str, dict[str, PairedScore]]:
    """Compare two lexicons on the same held-out documents; returns paired scores by measure and direction.

    Raises `InputError` if a lexicon, the text or the encoder cannot be used, or the lexicons are of different pairs.
    """
    a, source, target = open_lexicon(settings.left)
    b = Lexicon.load(Path(settings.right))
    text = PairText(source, target, settings)
    for lexicon, name in ((a, settings.left), (b, settings.right)):
        check_not_aligned_on(lexicon, name, settings, text.held_out)
    held_out = text.held_out_pair(part(progress, 0.0, 0.05))
    return paired_scores(a, b, held_out, settings.encoder or None, settings.seed, part(progress, 0.05, 1.0))


def rearrange(settings: RearrangeSettings, out: Path, progress: Progress = silent) -> dict[str, Any]:
    """Rearrange a model for the lexicon's target, calibrate it if requested, and save it to `out`.

    Returns the result of `model.to_folder.rearrange_to_folder`, with "recipe" and "origins" of the lexicon. Raises
    `InputError` if the lexicon is of another pair, or two options conflict.
    """
    from tokalign_lab.model.to_folder import check_choices, rearrange_to_folder

    lexicon = Lexicon.load(Path(settings.lexicon))
    check_choices(settings.calibrate, settings.keep_tied, settings.pad_to_multiple_of)
    source = load_vocabulary(settings.model)
    target = load_vocabulary(settings.target or lexicon.provenance["target"]["name"])
    names = ("seed", "keep_tied", "pad_to_multiple_of", "calibrate", "dequantize", "special_tokens")
    options = {name: getattr(settings, name) for name in names}
    done = rearrange_to_folder(settings.model, lexicon, source, target, out, progress=progress, **options)
    return {**done, "recipe": lexicon.provenance["recipe"], "origins": lexicon.origin_counts()}


def measure(settings: BitsSettings, progress: Progress = silent) -> BitsPerByte:
    """Measure bits per byte of a model with its own tokenizer on the held-out part of a text.

    `MeasureSettings` select the same bytes as a tuning run with these settings. Raises `InputError` if the model or the
    text cannot be used.
    """
    from tokalign_lab.evaluation.bits_per_byte import bits_per_byte, check_number
    from tokalign_lab.model.load import load_model

    _, held_out = read_parts(settings, needed=("held_out",))
    check_not_tuned_on(settings.model, settings, held_out)
    if isinstance(settings, MeasureSettings):
        held_out = excerpts(held_out, settings.evaluate_bytes, seed=settings.seed)
    vocabulary = load_vocabulary(settings.model)
    model = load_model(settings.model, device=pick_device(settings.device))
    found = bits_per_byte(model, vocabulary, held_out, progress=progress)
    check_number(found.bits_per_byte)
    return found


def check_tune(settings: AdaptRunSettings, here: bool = True) -> None:
    """Check model, text, teacher and device before a run is created; with `here` also the memory of this machine.

    Raises `InputError` if one does not exist, the teacher has another tokenizer, or tuning does not fit in memory.
    """
    if settings.trackers:
        from tokalign_lab.adaptation.trainer import check_trackers

        check_trackers(settings.trackers)
    model_folder(settings.model)
    vocabulary = load_vocabulary(settings.model)
    check_sources(settings.text)
    if settings.teacher:
        from tokalign_lab.adaptation.teacher import check_same_tokenizer

        model_folder(settings.teacher)
        check_same_tokenizer(load_vocabulary(settings.teacher), vocabulary)
    if settings.device is not None or here:
        device = pick_device(settings.device)
    if here:
        from tokalign_lab.adaptation.memory import check_memory
        from tokalign_lab.adaptation.processes import is_sharded

        sharded = bool(settings.accelerate_config) or is_sharded()
        check_memory(settings.model, settings.tuning, device, settings.memory, settings.processes or 1, sharded)


def _count_on_cluster(pair: TokenizedPair, address: str, progress: Progress) -> None:
    """Count both sides on a Dask cluster; GloVe then reads the counts from the cache."""
    from tokalign_lab.vectors.cluster import cluster_counts
    from tokalign_lab.vectors.glove import GloveSettings

    settings = GloveSettings()
    sides = ((pair.source_corpus, pair.source), (pair.target_corpus, pair.target))
    for number, (corpus, vocabulary) in enumerate(sides):
        counting = part(progress, number / 2, number / 2 + 0.5)
        cluster_counts(address, corpus, vocabulary.size, settings.window, settings.min_count, progress=counting)


def _read_parts(path: str | None) -> dict[str, list[int]]:
    if path is None:
        return {}
    try:
        return {str(name): [int(i) for i in ids] for name, ids in json.loads(Path(path).read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"'{path}' is no JSON file of {{part: target ids}} ({type(error).__name__}).") from error
