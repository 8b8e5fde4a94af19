"""Pages about the model right after the swap, before any tuning."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np
import plots
from page import Page, Raw, Row, digits, interval, mean, number

NAMES = {
    "smollm2-135m": "SmolLM2",
    "gemma-3-270m": "Gemma 3",
    "qwen2": "Qwen2",
    "gemma3": "Gemma 3",
    "pythia": "Pythia",
    "llama3": "Llama 3",
}
METHODS = {
    "floor": "source, own tokenizer",
    "anchored-calibrated": "anchored, calibrated (ours)",
    "anchored": "anchored (ours)",
    "pieces": "pieces (no vectors)",
    "tokalign++": "TokAlign++",
    "tokalign": "TokAlign, as its script",
}


def pair_name(pair: str) -> str:
    """Return the display name of a pair of catalogue names."""
    return " → ".join(NAMES.get(one, one) for one in pair.split(" → "))


def pairs_and_rows(raw: Raw, methods: Iterable[str]) -> tuple[list[str], dict[str, Row]]:
    """Return the pairs of `quality`, and the row of each method: bits per byte by pair."""
    pairs = [name for name in raw.table("All pairs")[0] if " → " in name]
    return pairs, {name: raw.row("All pairs", method=f"{name}:") for name in methods}


def closed_ways(raw: Raw) -> dict[str, float]:
    """Return for each pair how much of the way from `pieces` to the source calibrated `anchored` goes, in per cent."""
    row = raw.row("Share of the way", method="anchored-calibrated")
    return {pair: number(share) for pair, share in row.items() if " → " in pair}


def lead(raw: Raw) -> list[float]:
    """Return for each pair how many bits per byte `anchored` is below the best other method that needs only text."""
    others = ("pieces", "mean", "last-in-mean-out", "transplant", "tokalign", "tokalign++")
    pairs, rows = pairs_and_rows(raw, ("anchored", *others))
    known = {pair: [rows[name][pair] for name in others if rows[name][pair] is not None] for pair in pairs}
    return [min(known[pair]) - rows["anchored"][pair] for pair in pairs]


def quality(raw: Raw) -> Page:
    pairs, rows = pairs_and_rows(raw, (*METHODS, "pieces-calibrated", "focus-shipped"))
    closed = closed_ways(raw)
    half = [pair for pair in pairs if closed[pair] >= 50]
    whole = {name: mean([rows[name][pair] for pair in pairs]) for name in ("floor", "pieces", "anchored")}
    known = {name: [row[pair] for pair in pairs if row[pair] is not None] for name, row in rows.items()}
    titles = {name: title for name, title in METHODS.items() if name != "anchored-calibrated"}

    return Page(
        "Quality right after the swap",
        "How close is a converted model to its source before any tuning, compared with other methods?",
        f"Far from it: {digits(whole['anchored'])} bits per byte for `anchored`, averaged over nine pairs; the source has "
        f"{digits(whole['floor'])}; but without calibration no other method that needs only text is lower on any pair (`pieces`: {digits(whole['pieces'])}).",
        partial(
            plots.dots,
            names=[pair_name(pair) for pair in pairs],
            series={title: [spread(raw, pair, name) for pair in pairs] for name, title in METHODS.items()},
            label="bits per byte (lower is better); lines are the range of seeds",
        ),
        "Bits per byte by pair and method.",
        ["method", "mean bits per byte", "pairs", "minus `anchored`", "95 % interval"],
        [
            [title, mean(known[name]), len(known[name]), *_difference(rows[name])]
            for name, title in {**titles, "focus-shipped": "FOCUS, as shipped"}.items()
        ],
        f"The goal was half of the way from `pieces` to the source on every pair. Calibrated `anchored` reaches it on {len(half)} of "
        f"{len(pairs)}: {', '.join(f'{pair_name(pair)} {closed[pair]:.0f} %' for pair in half)}; the minimum is "
        f"{min(closed.values()):.0f} % ({pair_name(min(closed, key=closed.__getitem__))}). On Gemma 3 → sp32k and → SmolLM2, `anchored` and "
        "`pieces` differ by less than 0.02. One to three seeds, 8 kB of passages each; differences are over the same passages. Means over different "
        "numbers of pairs are not comparable; use the difference. Calibration lowers `anchored` by "
        f"{digits(-interval(rows['anchored-calibrated']['minus anchored'])[0], 2)} more, but gains nothing on the pairs to Qwen2; calibrated "
        f"`pieces` ends below it on Gemma 3 → SmolLM2 ({digits(rows['pieces-calibrated'][pairs[-1]])} against "
        f"{digits(rows['anchored-calibrated'][pairs[-1]])}, one seed).",
    )


def spread(raw: Raw, pair: str, method: str) -> tuple[float, float, float] | None:
    """Return mean, minimum and maximum over the seeds of a method on a pair."""
    source, target = pair.split(" → ")
    key = (source, "-" if method == "floor" else target, method)
    found = [
        line["all"]
        for line in raw.measured
        if (line["source"], line["target"], line["method"]) == key and "all" in line
    ]
    return (mean(found), min(found), max(found)) if found else None


def _difference(row: Row) -> tuple[str | None, str | None]:
    text = row["minus anchored"]
    if text is None:
        return None, None
    value, low, high = interval(text)
    return f"{value:+.2f}", f"{low:+.2f} to {high:+.2f}"


def excess(raw: Raw) -> Page:
    title = "smollm2-135m -> sp32k, anchored, calibrated: excess"
    rows = [row for row in raw.table(title) if row["text"] != "all"]
    whole = raw.row(title, text="all")["excess per byte"]
    interface = sum(row["excess per byte"] for row in rows if row["text"] == "interface")
    other = sum(row["excess per byte"] for row in rows if row["kind"] == "other place" and row["text"] != "interface")
    before = {
        (row["text"], row["kind"]): row["excess per byte"] for row in raw.table(title.replace(", calibrated", ""))
    }
    shown = {
        "before calibration": [before[row["text"], row["kind"]] for row in rows[:10]],
        "calibrated": [row["excess per byte"] for row in rows[:10]],
    }

    return Page(
        "Where the loss of a swap comes from",
        "Which tokens cost a converted model more bits than its source?",
        f"Of {digits(whole, 2)} excess bits per byte, {digits(interface, 2)} are in interface texts, mostly languages other than English; "
        f"in prose and code, shared tokens where the source splits differently cost {digits(other, 2)}.",
        partial(
            plots.dots,
            names=[f"{row['text']}: {row['kind']}" for row in rows[:10]],
            series=shown,
            label="excess bits per byte of all text",
            at=0,
        ),
        "Excess bits per byte by text and kind of token, before and after calibration.",
        ["text", "kind of token", "tokens", "bytes", "excess bits per byte"],
        [[row["text"], row["kind"], row["tokens"], row["bytes"], row["excess per byte"]] for row in rows[:6]],
        "One pair (SmolLM2-135M → sp32k), one seed, 12,000 bytes. *New*: the source has no such token. *Same place*: shared, with "
        "the source's token boundaries. *Other place*: shared, with other boundaries. Rows cannot repair unfamiliar sequences of "
        "known tokens; tuning has to.",
    )


def mixture_shares(raw: Raw) -> Page:
    rows = raw.table("Shares")
    tied, default = rows[0], rows[1]
    shown = {
        "not calibrated": [row["bits per byte"] for row in rows],
        "calibrated": [row["calibrated"] for row in rows],
    }
    return Page(
        "Composition of `anchored` rows",
        "Do the shares of vectors, pieces and first piece in a row matter?",
        f"Output rows separate from input rows help ({digits(tied['bits per byte'])} → {digits(default['bits per byte'])} bits per byte); "
        "the exact shares hardly matter.",
        partial(plots.dots, names=[row["row"] for row in rows], series=shown, label="bits per byte"),
        "Bits per byte by mixture, SmolLM2-135M → sp32k, before tuning.",
        ["mixture", "bits per byte", "calibrated"],
        [[row["row"], row["bits per byte"], row["calibrated"]] for row in rows],
        "One pair, one seed, 12,000 bytes: differences below 0.03 are noise. The run was stopped after six of ten mixtures.",
    )


def anchored_settings(raw: Raw) -> Page:
    by = raw.by("P@1", "setting")
    changes = {name: [100 * one for one in interval(row["minus the defaults"])] for name, row in by.items()}
    drawn = [name for name in by if name not in ("defaults", "min_count 10")]
    shown = ["defaults", "passes 1", "dimensions 500", "dimensions 100", "window 15", "min_count 10"]

    return Page(
        "Settings of the anchored vectors",
        "Which settings of the default vectors matter?",
        f"No default loses more than {digits(changes['passes 1'][0], 1)} points of P@1; the worst change is dropping "
        f"tokens that occur fewer than ten times ({digits(changes['min_count 10'][0], 2)} points).",
        partial(
            plots.dots,
            names=drawn,
            series={"change": [tuple(changes[name]) for name in drawn]},
            label="change of P@1, percentage points, with 95 % interval",
            at=0,
        ),
        "Change of P@1 against the defaults (`min_count 10` is off the scale).",
        ["setting", "P@1", "change, points", "95 % interval", "seconds"],
        [
            [
                name,
                by[name]["mean"],
                f"{changes[name][0]:+.1f}",
                "–" if name == "defaults" else "{:+.1f} to {:+.1f}".format(*changes[name][1:]),
                by[name]["seconds"],
            ]
            for name in shown
        ],
        "P@1: share of held-out shared tokens whose counterpart is ranked first. Three pairs, two seeds, 3 MB of text. One pass instead "
        "of three finds more in less time, but does not change bits per byte after the swap, so the default stays.",
    )


VECMAP = "GloVe, VecMap from identical tokens, CSLS"


def losses(raw: Raw) -> dict[str, float]:
    """Return the first-step loss of each lexicon, in nats per token."""
    return {name: row["loss"] for name, row in raw.by("The papers' order", "lexicon").items()}


def fit(raw: Raw, score: str) -> float:
    """Return the r² of a straight line from a score, target to source, to the first-step loss."""
    return float(raw.row("r²", score=f"{score} t->s")["r2 with loss"])


def faithfulness(raw: Raw) -> Page:
    by, loss = raw.by("The papers' order", "lexicon"), losses(raw)
    shown = [
        "GloVe, cosine", "GloVe, CSLS", VECMAP, "CBOW, VecMap, CSLS",
        "skip-gram, VecMap, CSLS", "hidden states, last, CSLS",
    ]  # fmt: skip
    bleu = {name: row["bleu1 t->s"] for name, row in by.items()}
    names = {VECMAP: "VecMap", "GloVe, cosine": "cosine", "hidden states, last, CSLS": "hidden states"}
    groups: dict[str, list[tuple[float, float, str]]] = {"lexicons": [], "shuffled lexicons": []}
    for name in by:
        group = groups["shuffled lexicons" if "shuffled" in name else "lexicons"]
        group.append((bleu[name], loss[name], names.get(name, "")))
    slope, start = np.polyfit(list(bleu.values()), list(loss.values()), 1)

    return Page(
        "The papers' ranking of vectors and mappings",
        "Do vectors, mappings and scores rank as TokAlign++ reports (its table 6)?",
        f"Not all: CSLS alone gains nothing here ({digits(loss['GloVe, CSLS'])} against {digits(loss['GloVe, cosine'])} nats for cosine); "
        f"VecMap is far better than cosine ({digits(loss[VECMAP])}), and BLEU-1 predicts the first-step loss "
        f"(r² {digits(fit(raw, 'bleu1'), 2)}; paper 0.93).",
        partial(
            plots.points,
            groups=groups,
            x="BLEU-1, target to source",
            y="first-step loss, nats per token",
            fit=(slope, start),
        ),
        f"First-step loss against BLEU-1, {len(by)} lexicons, with the fitted line.",
        ["lexicon", "loss", "paper's loss", "BLEU-1", "sentence score"],
        [[name, *(by[name][key] for key in ("loss", "paper", "bleu1 t->s", "sentence score t->s"))] for name in shown],
        f"One pair (SmolLM2-135M → sp32k), one seed, 5.6 MB of text; the paper has Pythia-1B → Gemma and at least 100 million "
        f"tokens. Skip-gram is ahead of GloVe here by {digits(loss[VECMAP] - loss['skip-gram, VecMap, CSLS'], 1)} nats; the paper reports the "
        "opposite. Hidden states have the best sentence score but a worse loss than GloVe with VecMap: there the scores "
        "mislead. Four of the 16 lexicons are shuffled versions of one, which makes a high r² easy.",
    )


def focus_lower(raw: Raw) -> tuple[int, int]:
    """Return on how many pairs FOCUS as shipped is lower than TokAlign's script, and on how many both were measured."""
    pairs, rows = pairs_and_rows(raw, ("focus-shipped", "tokalign"))
    both = [(rows["focus-shipped"][pair], rows["tokalign"][pair]) for pair in pairs]
    known = [pair for pair in both if None not in pair]
    return sum(focus < tokalign for focus, tokalign in known), len(known)


def focus_and_tokalign(raw: Raw) -> Page:
    names = {
        "tokalign": "TokAlign, as its script",
        "focus-shipped": "FOCUS, as shipped",
        "focus-repaired": "FOCUS, repaired",
        "tokalign++": "TokAlign++",
        "pieces": "pieces (no vectors)",
        "anchored": "anchored (ours)",
    }
    every, rows = pairs_and_rows(raw, names)
    pairs = [pair for pair in every if pair.startswith("smollm2")]
    lower, whole = focus_lower(raw)

    return Page(
        "FOCUS or TokAlign before tuning",
        "Is FOCUS far worse than TokAlign before tuning, as the papers report, or better, as a user measured (ZNLP/TokAlign issue 2)?",
        f"Neither in general: FOCUS as shipped starts lower than TokAlign's script on {lower} of {whole} pairs, and both "
        "are worse than the mean of a token's pieces, which needs no vectors.",
        partial(
            plots.dots,
            names=[pair_name(pair) for pair in pairs],
            series={title: [rows[name][pair] for pair in pairs] for name, title in names.items()},
            label="bits per byte before tuning",
        ),
        "Bits per byte by pair, before tuning.",
        ["method", *(pair_name(pair) for pair in pairs)],
        [[title, *(rows[name][pair] for pair in pairs)] for name, title in names.items()],
        "One seed for TokAlign and FOCUS, three for `pieces` and `anchored`. *Repaired*: shared tokens copied by bytes, special tokens "
        "by role. The papers' distance, a factor of 1,000 in perplexity, does not appear on any pair. Their FOCUS "
        "(normalised perplexity 1.8e6 in English) is worse than a uniform guess among 151,646 tokens (1.4e5). Their TokAlign disagrees with "
        "itself: the second paper puts the first-step loss at 9.5 nats, its table 1 at 4.9; the issue's 2,500 is 7.8 nats and "
        "[ours](faithfulness.md) is 8.89. Part of the script's loss comes from comparing strings: tokens covering 26.8 % of "
        "the text get the row of another token ([lesson 7](../notebooks/07_diagnosing_a_poor_pair.ipynb)). A full answer needs Pythia's "
        "weights, Gemma 1 and more seeds.",
    )


def overlap(raw: Raw) -> Page:
    rows = raw.by("From pythia", "target")
    smol = raw.by("From smollm2-135m", "target")
    chosen = ["gemma", "qwen2", "llama3", "sp32k", "gemma3"]
    drawn = [name for name in rows if name in smol]
    gemma = rows["gemma"]
    return Page(
        "Overlap of vocabularies",
        "How many tokens do two tokenizers share, and do our counts match the paper's?",
        f"They match to the token; but the paper counts equal strings, and by bytes Pythia and Gemma share {number(gemma['by bytes']):.0f} % "
        f"instead of {number(gemma['by string']):.1f} %.",
        partial(
            plots.dots,
            names=drawn,
            series={by: [number(rows[name][by]) for name in drawn] for by in ("by string", "by bytes")},
            label="tokens shared with Pythia, % of the target vocabulary",
        ),
        "Share of each target vocabulary that Pythia also has, by string and by bytes.",
        ["target", "tokens", "by string, %", "by bytes, %", "paper, %"],
        [
            [
                name,
                rows[name]["tokens"],
                number(rows[name]["by string"]),
                number(rows[name]["by bytes"]),
                number(rows[name]["papers"]) if rows[name]["papers"] else None,
            ]
            for name in chosen
        ],
        "Exact counts. The paper divides Llama 3's count by 128,000, without its 256 special tokens. Bytes per token are in the paper's order "
        "for Chinese, Japanese and Tamil; in English and Korean Gemma's place differs, on another text (see the raw data).",
    )


PAGES = {
    "quality": quality,
    "excess": excess,
    "mixture_shares": mixture_shares,
    "anchored_settings": anchored_settings,
    "faithfulness": faithfulness,
    "overlap": overlap,
}
