"""Findings about the text: whether there was enough of it to say what tokens without a twin are like.

A token that both vocabularies spell alike needs no text: its row is copied. All others are found by their company, and
a token that the text uses fewer than five times gets no vector (`vectors`, as in the papers' scripts); it rests on its
pieces or on nothing, however good the recipe is. A script that the text does not hold is the same for a whole language.
"""

from __future__ import annotations

import numpy as np

from tokalign_lab.evaluation.finding import NO_SCRIPT, Case, Finding, percent
from tokalign_lab.vectors.anchored_settings import AnchoredSettings

ENOUGH_USES = AnchoredSettings.min_count
"""Uses from which on a token gets a vector; how many tokens do, by amount of text, is in docs/results/growth.md."""
SEEN_WARN = 0.5
"""Share of the tokens without a twin. Our choice: smollm2-135m -> sp32k has 8 % of them at 0.3 MB of the packaged text,
24 % at 2 MB and 50 % at all of it (15 MB)."""
ABSENT_WARN = 0.1
"""Share of the tokens without a twin that are in scripts the text does not hold. Our choice."""


def text_findings(case: Case) -> list[Finding]:
    """All findings of this module; none where no text is known."""
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
        ""
        if severity == "ok"
        else "Align with more text: ten times as much gives two to three times as many tokens a vector.",
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
        "" if severity == "ok" else "Align with text in these scripts; nothing is learned about them from this one.",
        {"tokens": n, "share": share, "scripts": dict(scripts)},
        case.most_used(absent),
        case.ids(absent),
    )
