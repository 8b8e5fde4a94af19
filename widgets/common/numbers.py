"""For each number that panels show: its meaning, whether higher or lower is better, and a typical value.

Typical values are from `docs/results/` and the recorded runs, a few are rough ranges. They help to recognise an unusual
value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple


class Meaning(NamedTuple):
    """A number: its name, its meaning, whether higher or lower is better, and a typical value."""

    name: str
    what: str
    better: str = ""
    typical: str = ""

    @property
    def words(self) -> str:
        """Meaning, direction and typical value as one text."""
        parts = (
            f"{self.what}.",
            f"{self.better}." * bool(self.better),
            f"Typical: {self.typical}." * bool(self.typical),
        )
        return " ".join(filter(None, parts))


HIGHER, LOWER = "Higher is better", "Lower is better"
_INTERVAL = "a score of the papers, on held-out text"
MEANINGS = {
    "vocabulary": Meaning(
        "tokens, source → target", "Sizes of both vocabularies", "A smaller vocabulary has a smaller head",
        "32,000 to 262,144",
    ),
    "shared": Meaning(
        "of the target is shared", "Target tokens whose bytes the source also has; their rows are copied", HIGHER,
        "17 % to 98 %",
    ),
    "text_change": Meaning(
        "tokens for your text", "Tokens of the text you typed, source → target", "Fewer tokens make the model faster",
        "9 % more in English for SmolLM2 to a 32k vocabulary",
    ),
    "languages": Meaning(
        "languages need fewer tokens", "Common languages in which the target needs at least 2 % fewer tokens", HIGHER,
        "most of 12 for a larger vocabulary",
    ),
    "shared_rows": Meaning(
        "of the tokens are shared", "Target tokens whose bytes (or role) the source also has; their rows are copied",
        HIGHER, "17 % to 98 %",
    ),
    "shared_text": Meaning(
        "of the text in shared tokens", "Share of the text's tokens whose rows are copied from the source", HIGHER,
        "87 % in the recorded run",
    ),
    "seen": Meaning(
        "of the tokens are in the text",
        "Target tokens that occur in the text; rows of the others are built from their spelling",
        f"{HIGHER}; more text raises it", "65 % of 32,000 tokens in 5.6 MB",
    ),
    "p_at_1": Meaning(
        "P@1, held-out shared tokens", "Share of held-out shared tokens whose true partner is ranked first", HIGHER,
        "71 % to 94 % (docs/results)",
    ),
    "p_at_10": Meaning(
        "P@10, held-out shared tokens", "Share whose true partner is among the first ten", HIGHER,
        "98 % in the recorded run",
    ),
    "bleu1": Meaning(
        "BLEU-1", "Unigram overlap of held-out text with the same text in the other tokenizer, each token replaced by "
        f"its partner; {_INTERVAL}", HIGHER, "0.62 in the recorded run",
    ),
    "sentence_score": Meaning(
        "Sentence score", "Cosine of the sentence embeddings of a text and of the same text mapped by "
        f"the lexicon (the papers call it BERTScore); {_INTERVAL}", HIGHER, "0.82 in the recorded run",
    ),
    "bert_score": Meaning(
        "BERTScore", "F1 of matching each token's embedding in a text with the most similar one in the same text "
        "mapped by the lexicon (Zhang et al. 2020); the packaged encoder is for English",
        HIGHER,
        "0.82 in the recorded run",
    ),
    "match": Meaning(
        "Match at these tokens", "BLEU-1 precision of these tokens only: mapped to source tokens, the share of their "
        "occurrences that the source's own tokens of the document also contain (clipped counts)",
        HIGHER, "62 % for all tokens in the recorded run",
    ),
    "bits": Meaning(
        "bits per byte, held-out text", "Bits that the model needs per UTF-8 byte of unseen text; "
        "comparable between tokenizers", LOWER,
        "1.1 to 1.5 for SmolLM2 itself, 1.6 to 2.2 right after a swap",
    ),
    "gap": Meaning(
        "of the gap is closed", "Progress of tuning in bits per byte, from the model before tuning (0 %) to the source "
        "model with its own tokenizer (100 %)", HIGHER, "41 % to 65 % after 120 steps on single bytes (docs/results)",
    ),
    "better": Meaning(
        "than the source model", "Fewer bits per byte than the source model with its own tokenizer on the same text"
    ),
    "worse": Meaning(
        "than at step 0",
        "More bits per byte than before tuning: stop, and tune with lower learning rates or on more text",
    ),
    "tokens_per_second": Meaning(
        "tokens per second", "Training tokens per second", HIGHER, "32 to 234 on two cores for SmolLM2-135M"
    ),
    "probes": Meaning(
        "of the probes right",
        "Of the facts, phrases, sums and code that the source model completes, the share that this model completes too",
        HIGHER, "67 % in the recorded run",
    ),
    "loss": Meaning("loss, nats per token", "Training loss; compare it within one run only", LOWER, "2 to 7"),
    "divergence": Meaning(
        "divergence from the teacher", "KL divergence from the teacher's predictions, nats per token", LOWER,
        "falls during the run",
    ),
    "learning_rate": Meaning("learning rate", "Learning rate at the last step", "", "at most 1e-4 by default"),
    "grad_norm": Meaning("gradient norm", "Norm of the gradient before clipping; sudden jumps are a warning", "",
        "7 to 17"),
    "bytes_per_second": Meaning("bytes of text per second", "UTF-8 bytes of training text per second", HIGHER,
        "70 to 320 in the recorded runs"),
    "tokens": Meaning("tokens read", "Tokens of training text up to the last step"),
    "memory": Meaning("memory", "Peak memory of the GPU, or current memory of the process", LOWER,
        "4 GB for SmolLM2-135M"),
    "critical": Meaning("critical", "Findings that make a model from this lexicon useless", LOWER, "0"),
    "warnings": Meaning(
        "warnings", "Findings that lose quality, which tuning has to recover", LOWER, "4 in the recorded run"
    ),
    "passed": Meaning("passed", "Checks without a finding", HIGHER, "13 of 17 in the recorded run"),
    "concerned": Meaning("tokens affected", "Target tokens that a warning or a critical finding is about", LOWER,
        "3,376 of 32,000 in the recorded run"),
    "points": Meaning("tokens drawn", "Points on both maps: every token that has a vector"),
    "pairs": Meaning("pairs by vectors", "Target tokens matched to a source token by vectors, not by bytes"),
    "hub": Meaning(
        "most targets on one source",
        "Largest number of target tokens with the same source token; if large, it is a hub",
        LOWER, "150 in the recorded run",
    ),
    "selected": Meaning("tokens selected", "Tokens of the selection and their partners on the other map"),
    "moved": Meaning("of the tokens changed partner", "Target tokens whose partner differs between A and B"),
    "moved_text": Meaning("of the text changed partner", "The same share, weighted by occurrences in the text"),
    "difference": Meaning("BLEU-1, B minus A", "Difference of the means on held-out text", "Above 0, B is better"),
    "running": Meaning("running or waiting", "Runs that have not ended"),
    "finished": Meaning("finished", "Runs that completed their work"),
    "failed": Meaning("failed, lost or damaged", "Runs whose log shows the error", LOWER, "0"),
    "calibrated": Meaning(
        "nats per token, by calibration", "Loss on the text of the calibration, before and after it", LOWER,
        "4.09 → 3.54 for sp32k",
    ),
    "disk": Meaning("of weights", "Size of the model's weights on disk", LOWER, "0.29 GB for SmolLM2-135M with sp32k"),
    "lost": Meaning("parts not kept", "Parts of the source model that the new model lacks, such as code in its folder",
        LOWER, "0"),
    "on_disk": Meaning("runs", "Runs in this folder"),
    "saved": Meaning(
        "tokens saved", "How many fewer tokens the text has with the target tokenizer", HIGHER,
        "20 % to 56 % over 27 languages for SmolLM2 (docs/results)",
    ),
    "faster": Meaning(
        "times the speed", "Generated bytes of text per second, after the swap divided by before", HIGHER,
        "0.6 to 1.0 in English, 1.6 to 1.8 in Japanese (docs/results)",
    ),
    "recovered": Meaning(
        "times the bits per byte after recovery", "Bits per byte after the swap and a short recovery, divided by those "
        "of the source model tuned in the same way; from measured runs",
        LOWER, "1.1 to 1.7 after small budgets (docs/results/recovery.md)",
    ),
    "context": Meaning("bytes of context gained", "How many more bytes of text fit into the context window", HIGHER,
        "25 % with 20 % fewer tokens, 100 % with half the tokens"),
}  # fmt: skip

DIRECTIONS = {"target_to_source": "target → source", "source_to_target": "source → target"}  # of a lexicon's scores
SCORES = ("bleu1", "sentence_score", "bert_score", "p_at_1", "p_at_10")  # of a lexicon
Number = tuple[str, str]  # a key of MEANINGS, and the value as text


def cards(numbers: Sequence[Number]) -> str:
    """Return numbers with their names as HTML, each with a tooltip; "" if there are none."""
    made = "".join(card(escape(value), escape(MEANINGS[key].name), MEANINGS[key].words) for key, value in numbers)
    return f'<div class="tl-cards">{made}</div>' if made else ""


def card(value: str, name: str, meaning: str, style: str = "") -> str:
    """Return one number; `value` and `name` are HTML, `meaning` is text for its tooltip."""
    return (
        f'<div class="tl-card{style and " " + style}" title="{escape(meaning)}">'
        f'<div class="tl-card-value">{value}</div><div class="tl-card-name">{name}</div></div>'
    )


def meanings(keys: Sequence[str]) -> str:
    """Return the meanings of these numbers as a list in HTML."""
    lines = "".join(f"<dt>{escape(MEANINGS[k].name)}</dt><dd>{escape(MEANINGS[k].words)}</dd>" for k in keys)
    return f"<details class='tl-note'><summary>What the numbers mean</summary><dl>{lines}</dl></details>"


def score_in(
    scores: Mapping[str, Any] | None, measure: str, direction: str = "target_to_source"
) -> Mapping[str, Any] | None:
    """Find one of `SCORES` in an align run's `scores.json`, or in `LexiconScores.to_dict()`.

    Returns its "mean" and, if known, "low", "high" and "n"; None if it was not measured.
    """
    values = (scores or {}).get("held_out", {}) if measure.startswith("p_at") else (scores or {}).get("lexicon", scores)
    values = values or {}
    mean = values.get(measure)
    if isinstance(mean, Mapping):
        mean = mean.get(direction)
    elif direction != "target_to_source":  # a score without directions (P@1, P@10) is from target to source
        mean = None
    known: Mapping[str, Any] | None = (values.get("intervals") or {}).get(measure, {}).get(direction)
    return known or (None if mean is None else {"mean": float(mean)})


def share(value: float) -> str:
    """Return a share in percent, with one decimal below 10 % and above 90 % unless it is exactly 0 or 100 %."""
    percent = 100 * value
    places = 0 if 10 <= abs(percent) <= 90 or percent in (0, 100) else 1
    return f"{percent:.{places}f}\u00a0%"  # no line break before the sign
