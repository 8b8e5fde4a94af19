"""Findings about the text and both tokenizers: was there enough text, and do both sides cut it alike.

A token that both vocabularies spell alike needs no text: its row is copied. All others are found by their company, and
a token that the text uses fewer than five times gets no vector (`vectors`, as in the papers' scripts); it rests on its
pieces or on nothing, however good the recipe is. A script that the text does not hold is the same for a whole language.

The findings about the two tokenizers say where they cut text differently, whatever the lexicon says. Tokens that both
have are still met in unfamiliar sequences where one side writes digits one by one or indents with one token. In our
measurements most of the loss that remains after a good alignment is of this kind, and no lexicon takes it away.
"""

from __future__ import annotations

import numpy as np

from tokalign_lab.evaluation.finding import FEWEST_OF_SCRIPT, NO_SCRIPT, Case, Finding, percent, worst
from tokalign_lab.token_table import ROLES
from tokalign_lab.vectors.anchored_settings import AnchoredSettings
from tokalign_lab.vocabulary import Vocabulary

ENOUGH_USES = AnchoredSettings.min_count
"""Uses from which on a token gets a vector; how many tokens do, by amount of text, is in docs/results/growth.md."""
SEEN_WARN = 0.5
"""Share of the tokens without a twin. Our choice: smollm2-135m -> sp32k has 8 % of them at 0.3 MB of the packaged text,
24 % at 2 MB and 50 % at all of it (15 MB)."""
ABSENT_WARN = 0.1
"""Share of the tokens without a twin that are in scripts the text does not hold. Our choice."""

NUMBER = "1234567890"
INDENT = "x\n        y"
GAP_OF_TEXT_WARN, GAP_OF_VOCABULARY_WARN = 0.01, 0.05
"""Share in scripts that the source lacks: as for rows that rest on nothing (`row_findings`), which such tokens nearly
do: their own script holds no partner for them."""
_TUNE = "no lexicon changes this: have such text in what the model is tuned on"


def text_findings(case: Case) -> list[Finding]:
    """All findings about the text; none where no text is known."""
    return [amount(case), scripts_of_text(case)] if case.has_text else []


def amount(case: Case) -> Finding:
    """How many of the tokens that need a text are used in it often enough."""
    needing, rare = case.needing, case.needing & (case.counts < ENOUGH_USES)
    n, n_rare, unseen = int(needing.sum()), int(rare.sum()), int((needing & (case.counts == 0)).sum())
    seen = 1 - n_rare / n if n else 1.0
    severity = "warn" if seen < SEEN_WARN else "ok"
    megabytes = case.lexicon.provenance.get("text_bytes", 0) / 1e6
    return Finding(
        "amount of text",
        severity,
        f"Of {n:,} target tokens without a twin, the text ({megabytes:,.2f} MB) uses {n_rare:,} fewer than "
        f"{ENOUGH_USES} times, {unseen:,} of these never; {percent(seen)} are used often enough for a vector.",
        "Align with more text: ten times as much gives two to three times as many tokens a vector.",
        {"needing": n, "rare": n_rare, "unseen": unseen, "seen_share": seen, "text_bytes": round(megabytes * 1e6)},
        case.most_used(rare),
        case.ids(rare),
    )


def scripts_of_text(case: Case) -> Finding:
    """Tokens without a twin whose script the text hardly holds."""
    names, place = np.unique(case.scripts, return_inverse=True)
    uses = np.bincount(place, weights=case.counts, minlength=len(names))
    held = names[uses >= ENOUGH_USES]
    absent = case.needing & ~np.isin(case.scripts, (*NO_SCRIPT, *held))
    n = int(absent.sum())
    share = n / max(1, int(case.needing.sum()))
    severity = "warn" if share >= ABSENT_WARN else "ok"
    scripts = case.by_script(absent)
    listed = f": {', '.join(f'{name} ({times:,})' for name, times in scripts[:5])}" * bool(scripts)
    return Finding(
        "scripts the text lacks",
        severity,
        f"{n:,} target tokens without a twin ({percent(share)} of these) are in {len(scripts):,} scripts that the text "
        f"uses fewer than {ENOUGH_USES} times{listed}.",
        "Align with text in these scripts; nothing is learned about them from this one.",
        {"tokens": n, "share": share, "scripts": dict(scripts)},
        case.most_used(absent),
        case.ids(absent),
    )


def pair_findings(case: Case) -> list[Finding]:
    """All findings about the two tokenizers."""
    return [digits(case), whitespace(case), fragments(case), special_tokens(case), script_gap(case)]


def digits(case: Case) -> Finding:
    """Whether both sides cut a number alike."""
    ours, theirs = _pieces(case.target, NUMBER), _pieces(case.source, NUMBER)
    severity = "ok" if len(ours) == len(theirs) else "warn"
    return Finding(
        "digits",
        severity,
        f"The target writes {NUMBER} as {' '.join(ours)}, the source as {' '.join(theirs)}.",
        f"Numbers lose something; {_TUNE}.",
        {"target_tokens": len(ours), "source_tokens": len(theirs)},
        target_ids=case.ids(case.scripts == "digits"),
    )


def whitespace(case: Case) -> Finding:
    """Whether both sides cut indentation alike, and what the target's runs of white space rest on."""
    ours, theirs = _pieces(case.target, INDENT), _pieces(case.source, INDENT)
    spelled = [token or b"" for token in case.target.token_bytes]
    runs = case.is_token & np.array([len(token) > 1 and not token.strip(b" \t\r\n") for token in spelled])
    alone = runs & (case.origin != "identical")
    severity = "ok" if len(ours) == len(theirs) else "warn"
    return Finding(
        "white space",
        severity,
        f"The target writes an indented line as {' '.join(ours)}, the source as {' '.join(theirs)}; of "
        f"{int(runs.sum()):,} target tokens that are runs of white space {int(alone.sum()):,} have no twin in the "
        "source.",
        f"Indented code loses something; {_TUNE}.",
        {"target_tokens": len(ours), "source_tokens": len(theirs), "runs": int(runs.sum()), "alone": int(alone.sum())},
        case.most_used(alone),
        case.ids(alone),
    )


def fragments(case: Case) -> Finding:
    """Target tokens that are parts of characters, and what they rest on."""
    broken = (case.scripts == "bytes") & case.is_token
    alone = broken & case.on_nothing
    n, without = int(broken.sum()), int(alone.sum())
    severity = "warn" if case.text_share(alone) > 0 else "ok"
    return Finding(
        "parts of characters",
        severity,
        f"{n:,} target tokens are parts of UTF-8 characters ({percent(case.text_share(broken))} of the "
        f"{'text' if case.has_text else 'vocabulary'}); {without:,} of them rest on nothing.",
        "Characters outside the vocabulary will come out broken; use a recipe that spells by bytes (anchored, pieces).",
        {"fragments": n, "on_nothing": without, "share_of_text": case.text_share(broken)},
        case.most_used(alone),
        case.ids(alone if without else broken),
    )


def special_tokens(case: Case) -> Finding:
    """Whether special tokens inherit something: those with a role, and the marks of the chat template."""
    unmatched = case.target.is_control & case.is_token & ~case.with_partner
    roles = [role for role in ROLES if role in case.target.roles and unmatched[case.target.roles[role]]]
    template = str(getattr(case.target.tokenizer, "chat_template", None) or "")
    marks = [i for i in np.flatnonzero(unmatched).tolist() if case.target.raw_token(i) in template]
    severity = worst(["warn"] * bool(roles or marks))
    named = f"; roles: {', '.join(roles)}" * bool(roles)
    chat = f"; in the chat template: {' '.join(case.target.raw_token(i) for i in marks[:5])}" * bool(marks)
    return Finding(
        "special tokens",
        severity,
        f"{int(unmatched.sum()):,} of {int((case.target.is_control & case.is_token).sum()):,} special tokens of the "
        f"target have no counterpart{named}{chat}.",
        "Chats will need tuning on text that holds these tokens.",
        {"unmatched": int(unmatched.sum()), "roles": roles, "chat": [case.target.raw_token(i) for i in marks]},
        [case.target.raw_token(i) for i in np.flatnonzero(unmatched)[:5]],
        case.ids(unmatched),
    )


def script_gap(case: Case) -> Finding:
    """Target tokens in scripts of which the source has next to nothing."""
    lacking = case.needing & ~np.isin(case.scripts, (*NO_SCRIPT, *case.scripts_of_source))
    bound = GAP_OF_TEXT_WARN if case.has_text else GAP_OF_VOCABULARY_WARN
    severity = "warn" if case.text_share(lacking) >= bound else "ok"
    scripts = case.by_script(lacking)
    return Finding(
        "scripts the source lacks",
        severity,
        f"{case.amount(lacking)} are in scripts of which the source has fewer than {FEWEST_OF_SCRIPT} tokens"
        f"{': ' * bool(scripts)}{', '.join(f'{name} ({n:,})' for name, n in scripts[:5])}.",
        f"The source spells such text byte by byte, and so will the new rows; {_TUNE}.",
        {"share": case.share(lacking), "share_of_text": case.text_share(lacking), "scripts": dict(scripts)},
        case.most_used(lacking),
        case.ids(lacking),
    )


def _pieces(vocabulary: Vocabulary, text: str) -> list[str]:
    """Write the tokens of a text for people, without the space that SentencePiece puts in front."""
    labels = [vocabulary.label(int(i)) for i in vocabulary.encode([text])[0]]
    if labels and labels[0] in ("␣", "▁"):
        return labels[1:]
    return labels
