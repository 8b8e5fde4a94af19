"""The settings of each kind of run and of the commands of the same name; those of tuning are in `adaptation.settings`.

`TextSettings` decide which text a run reads and which part of it is held out, `MeasuredTextSettings` also how much of
that part a model is measured on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokalign_lab.settings.fields import Settings, option, required


class SplitSettings(Settings):
    """How a text is sampled and split."""

    seed: int = option(0, "Seed of all random draws.", least=0)
    held_out_share: float = option(
        0.05, "Share of the text that is held out for scores, where the text does not name its parts.", above=0, below=1
    )


class TextSettings(SplitSettings):
    """Which text is read and which part of it is held out: equal settings give equal parts."""

    text: tuple[str, ...] = required(
        "A text: 'default', a file, a folder, or hub:org/name. May be repeated.", flag="--text", path=True
    )
    max_bytes: int | None = option(None, "Take a sample of about this many bytes.", least=1)


class MeasuredSettings(SplitSettings):
    """How much of the held-out text a model is measured on."""

    evaluate_bytes: int = option(20_000, "How many bytes of the held-out text a measurement reads.", least=1)


class MeasuredTextSettings(MeasuredSettings, TextSettings):
    """Which bytes a model is measured on: models compare in bits per byte where these are equal."""


def text_of(settings: Mapping[str, Any], kind: type[SplitSettings] = TextSettings) -> dict[str, Any]:
    """Return those settings of a run, as in `run.json`, that decide its text, with defaults for what was not given.

    `kind` is `TextSettings` for the text and its parts, `MeasuredTextSettings` for what bits per byte are measured on.
    """
    return {one.name: settings.get(one.name, one.default) for one in kind.options()}


class AlignSettings(TextSettings):
    """Align two vocabularies."""

    subject = "A run of kind 'align'"

    source: str = required("The model's own tokenizer.", path=True)
    target: str = required("Tokenizer that the model gets.", path=True)
    recipe: str = option("anchored", "How to align.")
    overlap: str | None = option(None, "What makes a token shared: bytes, raw or none; the recipe's own by default.")
    one_to_one: bool = option(False, "Give no source row away twice.")
    model: str | None = option(None, "The source model, for recipes that read it (tokalign++-hidden, omp).", path=True)
    donor: str | None = option(None, "A model that has the target tokenizer, for the recipe omp.", path=True)
    vectors: tuple[str, ...] | None = option(
        None, "Vectors instead of GloVe: a file for the source, again for the target (.npz, .npy, word2vec).", path=True
    )
    cluster: str | None = option(None, "Address of a Dask scheduler to count the text for GloVe, as tcp://host:8786.")


class AdviseSettings(Settings):
    """Judge whether a swap is worth it, before any work."""

    subject = "Advice"

    model: str = required("The model as it is: a name, a folder or a hub id.", path=True)
    target: str = required("Tokenizer that the model gets.", path=True)
    text: tuple[str, ...] = required(
        "Text that the model is for: 'default', a file, a folder, or hub:org/name. May be repeated.",
        flag="--text",
        path=True,
    )
    max_bytes: int | None = option(2_000_000, "Take a sample of about this many bytes.", least=1)
    seed: int = option(0, "Seed of the sample.", least=0)
    device: str | None = option(None, "cpu or cuda; the best one here by default.")


class RearrangeSettings(Settings):
    """Give a model the target vocabulary of a lexicon."""

    subject = "A run of kind 'rearrange'"

    model: str = required("The model whose rows are rearranged.", path=True)
    lexicon: str = required("A lexicon that `align` wrote.", path=True)
    target: str | None = option(None, "The target tokenizer, if it is no longer at its old place.", path=True)
    calibrate: tuple[str, ...] | None = option(
        None, "Text to calibrate the output by, so that tokens are as likely as in it. May be repeated.", path=True
    )
    keep_tied: bool = option(False, "Leave tied matrices tied, at some loss; input rows serve both.")
    pad_to_multiple_of: int | None = option(None, "Add rows that are never written, up to a multiple (64, say).")
    special_tokens: str | None = option(
        None,
        "keep: add the source's control tokens; target: only the target's own. Default: keep for a chat model.",
    )
    dequantize: bool = option(False, "Turn a quantised model into one with plain weights.")
    seed: int = option(0, "Seed of all random draws.", least=0)
    out: str | None = option(None, "The folder for the new model; `model` in the run's folder by default.", path=True)


class ExportSettings(Settings):
    """Convert a model for another program."""

    subject = "`export`"

    model: str = required("A model and its tokenizer: a folder, a name or a hub id.", path=True)
    gguf: str = required("The GGUF file to write.", flag="--gguf", path=True)
    converter: str | None = option(
        None,
        "llama.cpp's convert_hf_to_gguf.py, a folder of llama.cpp's source, or the source archive of "
        "llama-cpp-python. Default: the script on the PATH.",
        path=True,
    )


class WritingSettings(Settings):
    """How a teacher writes text that a model is tuned on."""

    subject = "Writing"

    documents: int = required("How many texts it writes.", flag="--documents", least=1)
    prompt_tokens: int = option(32, "Tokens of the original text that each begins with.", least=1)
    new_tokens: int = option(96, "Tokens that it adds at most.", least=1)
    temperature: float = option(1.0, "Temperature of sampling; 0 writes greedily.", least=0)
    seed: int = option(0, "Seed of all random draws.", least=0)


class BitsSettings(TextSettings):
    """Measure a model with its own tokenizer on held-out text."""

    subject = "A run of kind 'measure'"

    model: str = required("A model and its tokenizer: a folder, a name or a hub id.", path=True)
    device: str | None = option(None, "cpu or cuda; the best one here by default.")


class MeasureSettings(BitsSettings, MeasuredTextSettings):
    """Measure a model on the bytes that a tuning run with these settings measures."""


class ScoreSettings(TextSettings):
    """Score a lexicon on held-out text; with the align run's text settings, on what that run held out."""

    subject = "A run of kind 'score'"

    lexicon: str = required("A lexicon that `align` wrote.", path=True)
    encoder: str | None = option("minilm", "Sentence encoder: a name, a folder or a hub id; none without one.")
    twins: bool = option(False, "Also hide shared tokens, align again and count how many are found (P@1, P@10).")
    model: str | None = option(None, "The source model, for P@1 of recipes that read it.", path=True)


class PartScoreSettings(ScoreSettings):
    """Score a lexicon and parts of it."""

    twins: bool = option(True, "Also hide shared tokens, align again and count how many are found (P@1, P@10).")
    before: str | None = option(None, "The lexicon without the edits, to compare with.", path=True)
    parts: str | None = option(None, "A JSON file {name: target ids} of the parts.", path=True)


class CompareSettings(TextSettings):
    """Score two lexicons of one pair on the same held-out documents."""

    subject = "A run of kind 'compare'"

    left: str = required("A: a lexicon that `align` wrote.", path=True)
    right: str = required("B: another of the same pair.", path=True)
    encoder: str | None = option("minilm", "Sentence encoder: a name, a folder or a hub id; none without one.")


class ProjectSettings(Settings):
    """Lay saved token vectors out on a plane."""

    subject = "A run of kind 'project'"

    vectors: tuple[str, ...] = required("The `.npz` files.", path=True)
    method: str = option("umap", "umap or pca.")
    shared: bool = option(False, "Lay all of them out on one plane.")
    fit_on: int | None = option(None, "How many tokens umap is fitted on; projection.FIT_ON by default.", least=1)
    seed: int = option(0, "Seed of all random draws.", least=0)


class TrainTokenizerSettings(TextSettings):
    """Train a tokenizer."""

    subject = "Training of a tokenizer"

    size: int = required("Tokens of the new vocabulary, special tokens included.", flag="--size")
    like: str | None = option(
        None, "Take algorithm, pretokeniser, special tokens and chat template from this tokenizer.", path=True
    )


class ExtendTokenizerSettings(TextSettings):
    """Add tokens to a tokenizer."""

    subject = "Extending a tokenizer"

    tokenizer: str = required("The tokenizer as it is: a name, a path or a hub id.", path=True)
    add: int = required("Number of new tokens.", flag="--add")


class DraftSettings(TextSettings):
    """Move a small model to a large one's vocabulary and measure it as the large one's draft model."""

    subject = "Measuring a draft model"

    model: str = required("The small model; one that has the large model's vocabulary is measured as it is.", path=True)
    large: str = required("The large model.", flag="--for", path=True)
    recovered: str | None = option(None, "The small model after recovery: a folder to measure too.", path=True)
    prompts: int = option(2, "Prompts per slice of the held-out text.", least=1)
    new_tokens: int = option(24, "Tokens to generate for each prompt.", least=2)
