"""Findings about the text and both tokenizers: whether there is enough text, and whether both split it in the same way.

Rows of shared tokens are copied and need no text. All other tokens are aligned by co-occurrence. A token that occurs
fewer than five times in the text gets no vector (`vectors`, as in the papers' scripts), so its row is built from pieces
or has no information about it, whatever the recipe. A script that is missing from the text affects a whole language.

The findings about the two tokenizers show where they split text differently. Shared tokens then occur in unfamiliar
sequences, for example if one tokenizer splits digits and the other does not. In our measurements, this causes most of
the loss after a good alignment, and no lexicon removes it.
"""

from __future__ import annotations

import numpy as np

from tokalign_lab.evaluation.finding import FEWEST_OF_SCRIPT, NO_SCRIPT, Case, Finding, grade, percent
from tokalign_lab.evaluation.row_findings import WITHOUT_SOURCE_OF_VOCABULARY_WARN, WITHOUT_SOURCE_WARN
from tokalign_lab.token_table import ROLES
from tokalign_lab.vectors.anchored_settings import AnchoredSettings
from tokalign_lab.vocabulary import Vocabulary

ENOUGH_USES = AnchoredSettings.min_count
"""Minimum occurrences for a vector; docs/results/growth.md has the number of such tokens by amount of text."""
RARE_WARN = 0.5
"""Share of rare tokens among those that are not shared. Our choice: smollm2-135m -> sp32k has 92 % at 0.3 MB of the
default text, 76 % at 2 MB and 50 % at all 15 MB."""
ABSENT_WARN = 0.1
"""Share of tokens in scripts that the text lacks, among those that are not shared. Our choice."""

NUMBER = "1234567890"
INDENT = "x\n        y"
GAP_OF_TEXT_WARN, GAP_OF_VOCABULARY_WARN = WITHOUT_SOURCE_WARN, WITHOUT_SOURCE_OF_VOCABULARY_WARN
"""Share in scripts that the source lacks: the same bounds as for rows without information."""
_TUNE = "no lexicon changes this: include such text in the tuning text"


def text_findings(case: Case) -> list[Finding]:
    """Return all findings about the text; none if no text is known."""
    return [amount(case), scripts_of_text(case)] if case.has_text else []


def amount(case: Case) -> Finding:
    """Check how many of the tokens that depend on the text occur often enough in it."""
    needing, rare = case.needs_text, case.needs_text & (case.counts < ENOUGH_USES)
    n, n_rare, unseen = int(needing.sum()), int(rare.sum()), int((needing & (case.counts == 0)).sum())
    n_bytes = case.lexicon.provenance.get("text_bytes", 0)
    seen = 1 - n_rare / n if n else 1.0
    return case.about(
        rare,
        "amount of text",
        "warn" if seen < 1 - RARE_WARN else "ok",
        f"Of {n:,} target tokens that are not shared, the text ({n_bytes / 1e6:,.2f} MB) uses {n_rare:,} fewer than "
        f"{ENOUGH_USES} times, {unseen:,} of these never; {percent(seen)} are used often enough for a vector.",
        "Align with more text: with ten times as much, two to three times as many tokens get a vector.",
        {"needing": n, "rare": n_rare, "unseen": unseen, "seen_share": seen, "text_bytes": round(n_bytes)},
    )


def scripts_of_text(case: Case) -> Finding:
    """Check for tokens that are not shared and whose script is missing from the text."""
    names, place = np.unique(case.scripts, return_inverse=True)
    uses = np.bincount(place, weights=case.counts, minlength=len(names))
    absent = case.needs_text & ~np.isin(case.scripts, (*NO_SCRIPT, *names[uses >= ENOUGH_USES]))
    n = int(absent.sum())
    share = n / max(1, int(case.needs_text.sum()))
    scripts, listed = case.by_script(absent)
    return case.about(
        absent,
        "scripts the text lacks",
        grade(share, ABSENT_WARN),
        f"{n:,} target tokens that are not shared ({percent(share)} of these) are in {len(scripts):,} scripts that the "
        f"text uses fewer than {ENOUGH_USES} times{listed}.",
        "Align with text in these scripts; this text has no information about them.",
        {"tokens": n, "share": share, "scripts": scripts},
    )


def pair_findings(case: Case) -> list[Finding]:
    """Return all findings about the two tokenizers."""
    return [digits(case), whitespace(case), fragments(case), special_tokens(case), script_gap(case)]


def digits(case: Case) -> Finding:
    """Check whether both tokenizers split a number into equally many tokens."""
    ours, theirs = _pieces(case.target, NUMBER), _pieces(case.source, NUMBER)
    return case.about(
        case.scripts == "digits",
        "digits",
        "ok" if len(ours) == len(theirs) else "warn",
        f"The target splits {NUMBER} into {' '.join(ours)}, the source into {' '.join(theirs)}.",
        f"Numbers lose some quality; {_TUNE}.",
        {"target_tokens": len(ours), "source_tokens": len(theirs)},
        examples=[],
    )


def whitespace(case: Case) -> Finding:
    """Check whether both tokenizers split an indented line into equally many tokens; count runs of white space."""
    ours, theirs = _pieces(case.target, INDENT), _pieces(case.source, INDENT)
    spelled = [token or b"" for token in case.target.token_bytes]
    runs = case.is_token & np.array([len(token) > 1 and not token.strip(b" \t\r\n") for token in spelled])
    alone = runs & (case.origin != "identical")
    n, n_alone = int(runs.sum()), int(alone.sum())
    return case.about(
        alone,
        "white space",
        "ok" if len(ours) == len(theirs) else "warn",
        f"The target splits an indented line into {' '.join(ours)}, the source into {' '.join(theirs)}; the source "
        f"lacks {n_alone:,} of {n:,} target tokens that are runs of white space.",
        f"Indented code loses some quality; {_TUNE}.",
        {"target_tokens": len(ours), "source_tokens": len(theirs), "runs": n, "alone": n_alone},
    )


def fragments(case: Case) -> Finding:
    """Check for target tokens that are parts of characters and have a row without information."""
    broken = (case.scripts == "bytes") & case.is_token
    alone = broken & case.without_evidence
    n, without = int(broken.sum()), int(alone.sum())
    return case.about(
        alone if without else broken,
        "parts of characters",
        "warn" if case.text_share(alone) > 0 else "ok",
        f"{n:,} target tokens are parts of UTF-8 characters ({percent(case.text_share(broken))} of the "
        f"{'text' if case.has_text else 'vocabulary'}); {without:,} of them have the mean row or a random one.",
        "Characters outside the vocabulary will be damaged; use a recipe with rows from pieces (anchored, pieces).",
        {"fragments": n, "on_nothing": without, "share_of_text": case.text_share(broken)},
        examples=None if without else [],
    )


def special_tokens(case: Case) -> Finding:
    """Check whether special tokens with a role, and those in the chat template, have a source."""
    special = case.target.is_control & case.is_token
    unmatched = special & ~case.with_partner
    roles = [role for role in ROLES if role in case.target.roles and unmatched[case.target.roles[role]]]
    template = str(getattr(case.target.tokenizer, "chat_template", None) or "")
    names = [case.target.raw_token(i) for i in np.flatnonzero(unmatched).tolist()]
    chat = [name for name in names if name in template]
    details = f"; roles: {', '.join(roles)}" * bool(roles)
    details += f"; in the chat template: {' '.join(chat[:5])}" * bool(chat)
    return case.about(
        unmatched,
        "special tokens",
        "warn" if roles or chat else "ok",
        f"{len(names):,} of {int(special.sum()):,} special tokens of the target have no counterpart{details}.",
        "For chats, tune on text that contains these tokens.",
        {"unmatched": len(names), "roles": roles, "chat": chat},
        examples=names[:5],
    )


def script_gap(case: Case) -> Finding:
    """Check for target tokens in scripts in which the source has fewer than `FEWEST_OF_SCRIPT` tokens."""
    lacking = case.needs_text & ~np.isin(case.scripts, (*NO_SCRIPT, *case.scripts_of_source))
    scripts, listed = case.by_script(lacking)
    return case.about(
        lacking,
        "scripts the source lacks",
        grade(case.text_share(lacking), GAP_OF_TEXT_WARN if case.has_text else GAP_OF_VOCABULARY_WARN),
        f"{case.amount(lacking)} are in scripts of which the source has fewer than {FEWEST_OF_SCRIPT} tokens{listed}.",
        f"The source writes such text byte by byte, so the new rows are built from byte tokens; {_TUNE}.",
        {"share": case.share(lacking), "share_of_text": case.text_share(lacking), "scripts": scripts},
    )


def _pieces(vocabulary: Vocabulary, text: str) -> list[str]:
    """Return the tokens of a text as labels, without the space that SentencePiece adds in front."""
    labels = [vocabulary.label(int(i)) for i in vocabulary.encode([text])[0]]
    return labels[1:] if labels and labels[0] in ("␣", "▁") else labels
