"""Findings about the two tokenizers: where they cut text differently, whatever the lexicon says.

Tokens that both have are still met in unfamiliar sequences where one side writes digits one by one or indents with one
token; in our measurements most of the loss that remains after a good alignment is of this kind, and no lexicon takes
it away. Knowing it tells what tuning has to learn.
"""

from __future__ import annotations

import numpy as np

from tokalign_lab.evaluation.finding import FEWEST_OF_SCRIPT, NO_SCRIPT, Case, Finding, percent, worst
from tokalign_lab.token_table import ROLES
from tokalign_lab.vocabulary import Vocabulary

NUMBER = "1234567890"
INDENT = "x\n        y"
GAP_OF_TEXT_WARN, GAP_OF_VOCABULARY_WARN = 0.01, 0.05
"""Share in scripts that the source lacks: as for rows that rest on nothing (`row_findings`), which such tokens nearly
do: their own script holds no partner for them."""
_TUNE = "no lexicon changes this: have such text in what the model is tuned on"


def pair_findings(case: Case) -> list[Finding]:
    """All findings of this module."""
    return [digits(case), whitespace(case), fragments(case), special_tokens(case), script_gap(case)]


def digits(case: Case) -> Finding:
    """Whether both sides cut a number alike."""
    ours, theirs = _pieces(case.target, NUMBER), _pieces(case.source, NUMBER)
    severity = "ok" if len(ours) == len(theirs) else "warn"
    return Finding(
        "digits",
        severity,
        f"The target writes {NUMBER} as {' '.join(ours)}, the source as {' '.join(theirs)}.",
        "" if severity == "ok" else f"Numbers lose something; {_TUNE}.",
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
        "" if severity == "ok" else f"Indented code loses something; {_TUNE}.",
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
        ""
        if severity == "ok"
        else "Characters outside the vocabulary will come out broken; use a recipe that spells "
        "by bytes (anchored, pieces).",
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
        "" if severity == "ok" else "Chats will need tuning on text that holds these tokens.",
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
        "" if severity == "ok" else f"The source spells such text byte by byte, and so will the new rows; {_TUNE}.",
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
