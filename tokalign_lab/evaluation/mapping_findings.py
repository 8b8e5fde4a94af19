"""Findings about the choice of partners: hubs, small margins, one-sided choices, choices across scripts.

A hub is a source token that is close to everything, and so becomes the best partner of unrelated tokens. TokAlign's
published matrices are examples of both extremes. In Pythia -> LLaMA3, 52.7 % of 86,209 targets have one of three source
tokens, and 3,144 of 50,254 source tokens are used; in Pythia -> Qwen2, 28,867 are used for 111,237 targets. The bounds
are between the two.
"""

from __future__ import annotations

import numpy as np

from tokalign_lab.alignment.search.neighbours import nearest
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.finding import NO_SCRIPT, Case, Finding, first_ids, grade, percent, several, worst
from tokalign_lab.vectors.token_vectors import TokenVectors

FEWEST_ALIGNED = 100
"""Minimum number of aligned tokens for reliable shares."""
TOP_THREE_WARN, TOP_THREE_POOR = 0.13, 0.26
"""Share of the three most chosen sources: a quarter and a half of the 52.7 % of Pythia -> LLaMA3."""
VARIETY_WARN, VARIETY_POOR = 0.29, 0.125
"""Distinct over possible sources: half of the 0.574 of Pythia -> Qwen2, and twice the 0.063 of Pythia -> LLaMA3."""
SMALL_MARGIN = 0.01
"""Share of the median score: a margin that another seed, or slightly more text, would reverse. Our choice."""
MARGINS_WARN = 0.5
MUTUAL_WARN = 0.1
"""On 300 kB of text anchored reaches 0.30, and the dot product of upstream's script 0.03."""
NEIGHBOURS_WARN = 0.2
"""On that text anchored reaches 0.69, upstream's relative representations 0.25, two unaligned GloVe spaces 0.10."""
REPEATED = 10
"""Minimum number of targets with the same row that are reported: each gets a tenth of the row's probability."""
REPEATED_WARN, REPEATED_POOR = 0.01, 0.1
SCRIPTS_WARN = 0.1
_SAMPLE = 2000
_ALIGN_AGAIN = "align with more text, or with a recipe that uses CSLS (anchored, tokalign++)"


def mapping_findings(case: Case, vectors: tuple[TokenVectors, TokenVectors] | None) -> list[Finding]:
    """Return all findings of this module; `vectors` of source and target are in one space."""
    found = [hubs(case), margins(case), mutual(case), repeated_rows(case), scripts(case)]
    if vectors is not None:
        found.append(vector_neighbours(case, *vectors))
    return [finding for finding in found if finding is not None]


def hubs(case: Case) -> Finding:
    """Check how evenly aligned targets are distributed over source tokens."""
    chosen = case.source_of[case.aligned]
    n = len(chosen)
    if n < FEWEST_ALIGNED:
        return Finding("hubs", "ok", f"Vectors aligned {n:,} tokens, too few for hubs.", values={"aligned": n})
    ids, times = np.unique(chosen, return_counts=True)
    order = np.argsort(-times, kind="stable")
    possible = min(n, int((~case.source.is_hole & ~case.source.is_control).sum()))
    variety, top_three = len(ids) / possible, float(times[order[:3]].sum() / n)
    return case.about(
        case.aligned[np.isin(chosen, ids[order[:3]])],
        "hubs",
        worst((grade(top_three, TOP_THREE_WARN, TOP_THREE_POOR), grade(-variety, -VARIETY_WARN, -VARIETY_POOR))),
        f"{n:,} aligned tokens chose {several(len(ids), 'different source')}; the three most chosen take "
        f"{percent(top_three)} of them, the first alone {times.max():,} tokens.",
        f"Hubs: {_ALIGN_AGAIN}.",
        {
            "aligned": n,
            "distinct": len(ids),
            "distinct_share": len(ids) / n,
            "variety": variety,
            "top_three": top_three,
            "largest_in_degree": int(times.max()),
        },
        examples=[f"{case.source.label(int(ids[i]))} × {times[i]:,}" for i in order[:5]],
    )


def margins(case: Case) -> Finding | None:
    """Check the margin of best over second-best candidates; None if there are no candidates."""
    table = case.lexicon.table.iloc[case.aligned]
    margin, score = table["margin"].to_numpy(np.float64), table["score"].to_numpy(np.float64)
    ranked = np.array([len(ids) > 1 for ids in table["candidate_ids"]], bool)
    known = ranked & np.isfinite(margin) & np.isfinite(score)
    if known.sum() < FEWEST_ALIGNED:
        return None
    margin, ids = margin[known], case.aligned[known]
    bound = SMALL_MARGIN * float(np.median(np.abs(score[known])))
    small = float((margin < bound).mean())
    low, middle, high = np.percentile(margin, (25, 50, 75))
    closest = ids[np.argsort(margin, kind="stable")]
    return Finding(
        "margins",
        grade(small, MARGINS_WARN),
        f"The median margin between best and second candidate is {middle:.4f} (quartiles {low:.4f} and {high:.4f}); "
        f"{percent(small)} of {len(margin):,} tokens have less than {bound:.4f}, so their choice is arbitrary.",
        f"Uncertain choices: {_ALIGN_AGAIN}, or mix several candidates (anchored).",
        {"n": len(margin), "quartiles": [float(low), float(middle), float(high)], "bound": bound, "small": small},
        case.pairs(closest),
        first_ids(closest[: int((margin < bound).sum())]),
    )


def mutual(case: Case) -> Finding | None:
    """Check whether aligned partners choose each other; None for imported lexicons, or too few tokens.

    Only source tokens that are not shared are checked, because shared ones have their partner already.
    """
    if case.lexicon.provenance["recipe"] == "imported":
        return None
    back, reverse = case.lexicon.target_of(), case.lexicon.reverse["origin"].to_numpy(dtype=str)
    partner = case.source_of[case.aligned]
    free = case.aligned[~np.isin(reverse[partner], ("identical", "role"))]
    if len(free) < FEWEST_ALIGNED:
        return None
    chosen_back = back[case.source_of[free]] == free
    share = float(chosen_back.mean())
    return case.about(
        free[~chosen_back],
        "mutual choice",
        "warn" if share < MUTUAL_WARN else "ok",
        f"For {percent(share)} of {len(free):,} aligned tokens whose source is not shared, the choice is mutual.",
        f"One-sided choices: {_ALIGN_AGAIN}.",
        {"n": len(free), "share": share, "source_is_shared": 1 - len(free) / len(case.aligned)},
        examples=case.pairs(free[~chosen_back]),
    )


def repeated_rows(case: Case) -> Finding:
    """Check for source rows that many targets copy, so that these share the probability of one token."""
    table, prefix = case.lexicon.table, "output_" if case.lexicon.has_output else ""
    made = zip(table[f"{prefix}sources"].to_list(), table[f"{prefix}weights"].to_list(), strict=True)
    row = np.array([s[0] if len(s) == 1 and w[0] > 0.99 else -1 for s, w in made], np.int64)
    ids = np.flatnonzero((row >= 0) & case.is_token)
    sources, place, times = np.unique(row[ids], return_inverse=True, return_counts=True)
    repeated = ids[times[place] >= REPEATED] if len(ids) else ids
    largest = int(times.max(initial=0))
    order = np.argsort(-times, kind="stable")[:5]
    return case.about(
        repeated,
        "one source for many",
        grade(case.share(repeated), REPEATED_WARN, REPEATED_POOR),
        f"{case.amount(repeated)} copy a row that at least {REPEATED} tokens copy; the maximum is {largest:,} tokens.",
        "Targets with the same row share its probability: use a recipe that mixes rows (anchored) or align one-to-one.",
        {"crowded_share": case.share(repeated), "largest": largest},
        examples=[f"{case.source.label(int(sources[i]))} → {times[i]:,} tokens" for i in order if times[i] >= REPEATED],
    )


def scripts(case: Case) -> Finding | None:
    """Check for partners in another script although the source has tokens in the target's; None for too few tokens."""
    ours, theirs = case.scripts[case.aligned], case.source_scripts[case.source_of[case.aligned]]
    both = np.isin(ours, case.scripts_of_source) & ~np.isin(ours, NO_SCRIPT) & ~np.isin(theirs, NO_SCRIPT)
    n = int(both.sum())
    if n < FEWEST_ALIGNED:
        return None
    ids = case.aligned[both & (ours != theirs)]
    share = len(ids) / n
    return case.about(
        ids,
        "scripts",
        grade(share, SCRIPTS_WARN),
        f"{len(ids):,} of {n:,} aligned tokens ({percent(share)}) have a partner in another script, although the "
        "source has tokens in their script.",
        "Align with more text in the scripts of these tokens.",
        {"n": n, "share": share},
        examples=case.pairs(ids[np.argsort(-case.counts[ids], kind="stable")]),
    )


def vector_neighbours(case: Case, source: TokenVectors, target: TokenVectors) -> Finding:
    """Check how many target tokens of a sample and their nearest source tokens are each other's nearest, by cosine.

    Raises `InputError` if the vectors are not of these tokenizers, or there are none.
    """
    for side, vectors, vocabulary in (("source", source, case.source), ("target", target, case.target)):
        if vectors.vocabulary_fingerprint != vocabulary.fingerprint:
            raise InputError(
                f"The {side} vectors are not of the tokenizer '{vocabulary.name}'; give those that were saved with "
                "this lexicon."
            )
    queried = np.linspace(0, len(target) - 1, min(len(target), _SAMPLE)).round().astype(np.int64)
    there = nearest(target.rows[queried], source.rows, k=1)[0][:, 0]
    back = nearest(source.rows[there], target.rows, k=1)[0][:, 0]
    share = float((back == queried).mean()) if len(queried) else 0.0
    return case.about(
        target.ids[queried[back != queried]],
        "vector neighbours",
        "warn" if share < NEIGHBOURS_WARN else "ok",
        f"{percent(share)} of {len(queried):,} target tokens and their nearest source are each other's nearest; "
        f"{len(target):,} target and {len(source):,} source tokens have a vector.",
        "The two sets of vectors hardly match: align with more text, or with another recipe.",
        {"n": len(queried), "share": share, "target_vectors": len(target), "source_vectors": len(source)},
        examples=[],
    )
