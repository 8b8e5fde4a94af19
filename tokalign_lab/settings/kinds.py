"""The settings of each kind of run and of the commands of the same name; those of tuning are in `adaptation.settings`.

`TextSettings` determine the text of a run and its held-out part. `MeasuredTextSettings` also determine the number of
held-out bytes for measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokalign_lab.errors import InputError
from tokalign_lab.settings.fields import Settings, option, required

MOST_SEED = 2**32 - 1  # numpy and transformers take no larger one
LEAST_TEMPERATURE = 0.01  # logits are divided by it


def _seed(help: str) -> Any:
    return option(0, help, least=0, most=MOST_SEED)


class SplitSettings(Settings):
    """Settings of how a text is sampled and split."""

    seed: int = _seed("Random seed.")
    held_out_share: float = option(
        0.05, "Share of the text held out for scores, unless the text names its parts.", above=0, below=1
    )


class TextSettings(SplitSettings):
    """Settings of the text and its held-out part: equal settings give equal parts."""

    text: tuple[str, ...] = required(
        "A text: 'default', a file, a folder, or hub:org/name. May be repeated.", flag="--text", path=True
    )
    max_bytes: int | None = option(None, "Use a sample of about this many bytes of the text.", least=1)


class MeasuredSettings(SplitSettings):
    """Settings of the amount of held-out text for measurements."""

    evaluate_bytes: int = option(20_000, "Bytes of held-out text for a measurement.", least=1)


class MeasuredTextSettings(MeasuredSettings, TextSettings):
    """Settings of the bytes for measurements: bits per byte are comparable only if these settings are equal."""


def text_of(settings: Mapping[str, Any], kind: type[SplitSettings] = TextSettings) -> dict[str, Any]:
    """Return the settings of a run, as in `run.json`, that determine its text; missing ones have their defaults.

    `kind` is `TextSettings` for the text and its parts, `MeasuredTextSettings` for the text of measurements.
    """
    return {one.name: settings.get(one.name, one.default) for one in kind.options()}


class AlignSettings(TextSettings):
    """Align two vocabularies."""

    subject = "A run of kind 'align'"

    source: str = required("The model's own tokenizer.", path=True)
    target: str = required("The model's new tokenizer.", path=True)
    recipe: str = option("anchored", "Alignment recipe.")
    overlap: str | None = option(None, "How shared tokens are found: bytes, raw or none; by default as in the recipe.")
    one_to_one: bool = option(False, "Use each source row at most once.")
    model: str | None = option(None, "The source model, for recipes that read it (tokalign++-hidden, omp).", path=True)
    donor: str | None = option(None, "A model that has the target tokenizer, for the recipe omp.", path=True)
    vectors: tuple[str, ...] | None = option(
        None, "Vectors instead of GloVe: a file for the source, one for the target (.npz, .npy, word2vec).", path=True
    )
    cluster: str | None = option(
        None, "Address of a Dask scheduler that counts the text for GloVe, such as tcp://host:8786."
    )


class AdviseSettings(Settings):
    """Estimate whether a swap is worth it before it starts."""

    subject = "Advice"

    model: str = required("The source model: a name, a folder or a hub id.", path=True)
    target: str = required("The model's new tokenizer.", path=True)
    text: tuple[str, ...] = required(
        "Text like what the model will read: 'default', a file, a folder, or hub:org/name. May be repeated.",
        flag="--text",
        path=True,
    )
    max_bytes: int | None = option(2_000_000, "Use a sample of about this many bytes of the text.", least=1)
    seed: int = _seed("Seed of the sample.")
    device: str | None = option(None, "cpu or cuda; the best one here by default.")


class RearrangeSettings(Settings):
    """Replace a model's vocabulary by the target of a lexicon."""

    subject = "A run of kind 'rearrange'"

    model: str = required("The model whose rows are rearranged.", path=True)
    lexicon: str = required("A lexicon written by `align`.", path=True)
    target: str | None = option(None, "The target tokenizer, if its path has changed.", path=True)
    calibrate: tuple[str, ...] | None = option(
        None,
        "Calibrate on this text: match the token frequencies of the text and of the source's predictions. "
        "May be repeated.",
        path=True,
    )
    keep_tied: bool = option(
        False, "Keep tied matrices tied: input rows are also output rows, which gives a higher loss."
    )
    pad_to_multiple_of: int | None = option(None, "Pad the number of rows to a multiple of this, such as 64.")
    special_tokens: str | None = option(
        None, "keep: add the source's control tokens; target: only the target's own. Default: keep for chat models."
    )
    dequantize: bool = option(False, "Dequantise a quantised model.")
    seed: int = _seed("Random seed.")
    out: str | None = option(None, "The folder for the new model; `model` in the run's folder by default.", path=True)


class ExportSettings(Settings):
    """Convert a model for another program, or publish it."""

    subject = "`export`"

    model: str = required("A model and its tokenizer: a folder, a name or a hub id.", path=True)
    gguf: str | None = option(None, "The GGUF file to write.", path=True)
    converter: str | None = option(
        None,
        "llama.cpp's convert_hf_to_gguf.py or source folder, or llama-cpp-python's source archive. "
        "Default: search the PATH.",
        path=True,
    )
    push_to_hub: str | None = option(
        None, "Publish the model's folder under this hub id, organisation/name, unless a check of it fails."
    )
    private: bool = option(False, "If --push-to-hub creates the repository, make it private.")


class WritingSettings(Settings):
    """Settings for generating text for tuning with a teacher."""

    subject = "Writing"

    documents: int = required("Number of texts to generate.", flag="--documents", least=1)
    prompt_tokens: int = option(32, "Length of the prompt from the original text, in tokens.", least=1)
    new_tokens: int = option(96, "Maximum number of tokens to generate.", least=1)
    temperature: float = option(1.0, "Sampling temperature; 0: greedy.", least=0)
    seed: int = _seed("Random seed.")

    def __post_init__(self) -> None:
        """Refuse temperatures by which logits would become infinite."""
        super().__post_init__()
        if 0 < self.temperature < LEAST_TEMPERATURE:
            raise InputError(
                f"The setting temperature is {self.temperature}, but it must be 0 (greedy) or at least "
                f"{LEAST_TEMPERATURE}."
            )


class BitsSettings(TextSettings):
    """Measure a model with its own tokenizer on held-out text."""

    subject = "A run of kind 'measure'"

    model: str = required("A model and its tokenizer: a folder, a name or a hub id.", path=True)
    device: str | None = option(None, "cpu or cuda; the best one here by default.")


class MeasureSettings(BitsSettings, MeasuredTextSettings):
    """Measure a model on the same bytes as a tuning run with these settings."""


class ScoreSettings(TextSettings):
    """Score a lexicon on held-out text; with the text settings of the align run, on the same held-out part."""

    subject = "A run of kind 'score'"

    lexicon: str = required("A lexicon written by `align`.", path=True)
    encoder: str | None = option("minilm", "Sentence encoder: a name, a folder or a hub id.")
    twins: bool = option(False, "Also hide shared tokens, align again and count how many are found (P@1, P@10).")
    model: str | None = option(None, "The source model, for P@1 of recipes that read it.", path=True)


class PartScoreSettings(ScoreSettings):
    """Score a lexicon and parts of it."""

    twins: bool = option(True, "Also hide shared tokens, align again and count how many are found (P@1, P@10).")
    before: str | None = option(None, "The lexicon before the edits, for comparison.", path=True)
    parts: str | None = option(None, "A JSON file {name: target ids} of the parts.", path=True)


class CompareSettings(TextSettings):
    """Score two lexicons of one pair on the same held-out documents."""

    subject = "A run of kind 'compare'"

    left: str = required("A: a lexicon written by `align`.", path=True)
    right: str = required("B: another of the same pair.", path=True)
    encoder: str | None = option("minilm", "Sentence encoder: a name, a folder or a hub id.")


class ProjectSettings(Settings):
    """Project saved token vectors to two dimensions."""

    subject = "A run of kind 'project'"

    vectors: tuple[str, ...] = required("The `.npz` files.", path=True)
    method: str = option("umap", "umap or pca.")
    shared: bool = option(False, "Project all of them together.")
    fit_on: int | None = option(None, "Number of tokens to fit umap on; projection.FIT_ON by default.", least=1)
    seed: int = _seed("Random seed.")


class TrainTokenizerSettings(TextSettings):
    """Train a tokenizer."""

    subject = "Training of a tokenizer"

    size: int = required("Tokens of the new vocabulary, added tokens included.", flag="--size")
    like: str | None = option(
        None, "Use the algorithm, pre-tokenizer, special tokens and chat template of this tokenizer.", path=True
    )


class ExtendTokenizerSettings(TextSettings):
    """Add tokens to a tokenizer."""

    subject = "Extending a tokenizer"

    tokenizer: str = required("The tokenizer to extend: a name, a path or a hub id.", path=True)
    add: int = required("Number of new tokens.", flag="--add")


class DraftSettings(TextSettings):
    """Convert a small model to a large one's vocabulary and measure it as the large one's draft model."""

    subject = "Measuring a draft model"

    model: str = required(
        "The small model. If it already has the large model's vocabulary, it is measured as it is.", path=True
    )
    large: str = required("The large model.", flag="--for", path=True)
    recovered: str | None = option(None, "Folder of the small model after recovery, to measure too.", path=True)
    prompts: int = option(2, "Prompts per slice of the held-out text.", least=1)
    new_tokens: int = option(24, "Tokens to generate for each prompt.", least=2)
