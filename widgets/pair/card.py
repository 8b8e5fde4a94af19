"""Facts about two tokenizers before alignment: sizes, roles, scripts, bytes per token by language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from tokalign_lab.catalog.choices import Choice, where_from
from tokalign_lab.evaluation.breakdown import scripts_of
from tokalign_lab.evaluation.compression import LANGUAGES
from tokalign_lab.spelling import WITHOUT_LETTERS
from tokalign_lab.vocabulary import Overlap, Vocabulary

from ..common.numbers import share

ROLE_WORDS = {"bos": "begins a text", "eos": "ends a text", "pad": "padding", "unk": "unknown"}
TOP_SCRIPTS = 8
SAME_LENGTH = 0.02  # smaller changes of the number of tokens count as "about the same"
COMMON = 12  # number of languages shown by default
_WITHOUT_SCRIPT = {
    "digits": "digits", "symbols": "signs", "whitespace": "white space", "bytes": "parts of characters",
    "special": "special",
}  # fmt: skip


def card_html(source: Vocabulary, target: Vocabulary, shared: Overlap) -> str:
    """Return both tokenizers side by side, and how much they share, as HTML."""
    rows = [
        (
            "Shared",
            f"{share(shared.bytes_share)} of the target by bytes ({shared.bytes_count:,})",
            f"{share(shared.raw_share)} by string ({shared.raw_count:,}); Ġthe and ▁the are the same bytes",
        ),
        ("Tokens", *(f"{int((~v.is_hole).sum()):,}" for v in (source, target))),
        ("Algorithm", *(escape(f"{v.algorithm}, {v.kind}") for v in (source, target))),
        ("Special tokens", *(_roles_html(v) for v in (source, target))),
        ("Comes from", *(escape(where_words(where_from(v.name))) for v in (source, target))),
        ("Licence", *(escape(_licence(v.name)) for v in (source, target))),
    ]
    cells = "".join(f'<div class="tl-key">{key}</div><div>{a}</div><div>{b}</div>' for key, a, b in rows)
    head = f"<div></div><div><b>Source: {escape(source.name)}</b></div><div><b>Target: {escape(target.name)}</b></div>"
    return f'<div class="tl-sides">{head}{cells}</div>'


def shorter_words(names: tuple[str, str], rates: Sequence[Mapping[str, float]]) -> tuple[int, str]:
    """Return how many common languages need fewer tokens with the target: the number, and a text about it.

    The text also reports the language that saves most, and English.

    Parameters
    ----------
    names, rates : as for `languages_html`
    """
    ratio = {code: rates[0][code] / rates[1][code] for code in list(LANGUAGES)[:COMMON]}
    shorter = sum(value < 1 - SAME_LENGTH for value in ratio.values())
    best = min(ratio, key=lambda code: ratio[code])
    words = f"{names[1]} needs fewer tokens than {names[0]} in {shorter} of {COMMON} common languages"
    words += f" (most in {LANGUAGES[best]}: {_length_words(ratio[best])})" * (shorter > 0)
    return shorter, f"{words}. English: {_length_words(ratio['en'])}."


def scripts_html(source: Vocabulary, target: Vocabulary) -> str:
    """Return the tokens per script of both vocabularies as HTML: a table of the largest scripts, a list of others."""
    counts = [Counter(scripts_of(vocabulary).tolist()) for vocabulary in (source, target)]
    names = sorted({*counts[0], *counts[1]} - {""}, key=lambda name: (-(counts[0][name] + counts[1][name]), name))
    letters = [name for name in names if name not in (*WITHOUT_LETTERS, "special")]
    sizes = [max(1, sum(count.values())) for count in counts]
    lines = "".join(
        f"<tr><th scope='row'>{escape(name)}</th>"
        + "".join(_meter(f"{count[name]:,}", count[name] / size) for count, size in zip(counts, sizes, strict=True))
        + "</tr>"
        for name in letters[:TOP_SCRIPTS]
    )
    smaller = [f"{name} {counts[0][name]:,} / {counts[1][name]:,}" for name in letters[TOP_SCRIPTS:]]
    others = [
        f"{words} {counts[0][name]:,} / {counts[1][name]:,}"
        for name, words in _WITHOUT_SCRIPT.items()
        if counts[0][name] + counts[1][name]
    ]
    listed = escape(", ".join(smaller))
    more = f"<details><summary>{len(smaller)} more scripts</summary>{listed}</details>" * bool(smaller)
    return (
        '<table class="tl-plain"><caption>Tokens by script of their letters; bars are shares of each '
        "vocabulary</caption><thead><tr>"
        f'<th scope="col">Script</th>{_heads(source.name, target.name)}</tr></thead><tbody>{lines}</tbody></table>'
        f'<div class="tl-note">{more}Without letters, source / target: {escape(", ".join(others))}.</div>'
    )


def languages_html(
    names: tuple[str, str], rates: Sequence[Mapping[str, float]], codes: Sequence[str] | None = None
) -> str:
    """Return bytes per token by language, and how the number of tokens changes, as HTML.

    Parameters
    ----------
    names : names of source and target
    rates : bytes per token by language code, of source and target
    codes : languages to show; the common ones by default
    """
    shown = list(codes if codes is not None else list(LANGUAGES)[:COMMON])
    most = max((rate[code] for rate in rates for code in shown), default=1.0)
    lines = "".join(
        f'<tr><th scope="row">{escape(LANGUAGES[code])}</th>'
        + "".join(_meter(f"{rate[code]:.2f}", rate[code] / most) for rate in rates)
        + f"<td>{_length_words(rates[0][code] / rates[1][code])}</td></tr>"
        for code in shown
    )
    return (
        '<table class="tl-plain tl-languages"><caption>Bytes per token by language, on the declaration of human '
        f'rights; higher is better</caption><thead><tr><th scope="col">Language</th>{_heads(*names)}'
        f'<th scope="col">Tokens with the target</th></tr></thead><tbody>{lines}</tbody></table>'
    )


def offers_html(wanted: Sequence[Choice]) -> str:
    """Return size, origin and licence of what would be downloaded, as HTML."""
    lines = "".join(
        f"<li><b>{escape(choice.name)}</b>"
        + (
            f": {escape(choice.description)}. {choice.size_bytes / 1e6:.0f} MB, {where_words(choice)}; licence "
            f"{escape(choice.licence)}.</li>"
            if choice.size_bytes
            else ": from the Hugging Face hub; its page shows size and licence.</li>"
        )
        for choice in wanted
    )
    return f"<p>Not on this machine yet. Click “Fetch what is missing” to download:</p><ul>{lines}</ul>"


def where_words(choice: Choice) -> str:
    """Return the origin of a choice and whether it is on this machine."""
    where = {"packaged": "packaged (PyPI)", "hub cache": "the hub", "hub": "the hub", "folder": "your file or folder"}
    return f"{where[choice.where]}, {'on this machine' if choice.here else 'not on this machine'}"


def _length_words(ratio: float) -> str:
    """Return the change in the number of tokens as text; `ratio` is bytes per token of the source over the target's."""
    change = ratio - 1
    if abs(change) < SAME_LENGTH:
        return "about the same"
    return f"{100 * abs(change):.0f}\u00a0% {'more' if change > 0 else 'fewer'}"


def _meter(figure: str, part: float) -> str:
    return (
        f'<td class="tl-number">{figure}</td><td class="tl-meter" aria-hidden="true">'
        f'<span style="width:{min(1.0, part):.1%}"></span></td>'
    )


def _heads(*names: str) -> str:
    return "".join(f'<th scope="col" colspan="2">{escape(name)}</th>' for name in names)


def _roles_html(vocabulary: Vocabulary) -> str:
    roles = [
        f'{escape(ROLE_WORDS[role])} <span class="tl-token">{escape(vocabulary.raw_token(i))}</span>'
        for role, i in vocabulary.roles.items()
    ]
    held = np.fromiter(vocabulary.roles.values(), dtype=np.int64)
    others = int(vocabulary.is_control.sum()) - len(np.unique(held))
    return ", ".join(roles) + (f", and {others} more" if others > 0 else "") or "none"


def _licence(name: str) -> str:
    choice = where_from(name)
    return choice.licence or {"folder": "see the folder"}.get(choice.where, "see its page on the hub")
