"""Choose a pair of tokenizers, and see before any work what they are and how they differ."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w
import pandas as pd

from tokalign_lab.catalog import assets, cached_path, find
from tokalign_lab.errors import InputError
from tokalign_lab.vocabulary import Overlap, Vocabulary, overlap
from tokalign_lab.widgets.background import Latest
from tokalign_lab.widgets.chips import pair_html
from tokalign_lab.widgets.panel import Panel, bar, button
from tokalign_lab.widgets.state import LabState
from tokalign_lab.widgets.vocabularies import vocabulary_of

KINDS = ("model", "tokenizer")
ROLE_WORDS = {"bos": "begins a text", "eos": "ends a text", "pad": "padding", "unk": "unknown"}


class PairPicker(Panel):
    """Pick source and target.

    Parameters
    ----------
    source, target : catalogue names, paths or hub ids; by default those of the state
    load : loads a vocabulary by name (tests give their own)
    """

    def __init__(
        self,
        source: str | None = None,
        target: str | None = None,
        state: LabState | None = None,
        load: Callable[[str], Vocabulary] = vocabulary_of,
    ) -> None:
        super().__init__("Tokenizer pair", "tl-picker", state)
        if source is not None:
            self.lab_state.source = source
        if target is not None:
            self.lab_state.target = target
        self._load = load
        self._loaded: dict[str, Vocabulary] = {}
        self._overlap: tuple[str, str, Overlap] | None = None
        self._latest, self._latest_text = Latest(), Latest()
        self._build()
        self._watch(self._on_names, "source", "target")
        self.refresh()

    def _build(self) -> None:
        names = [asset.name for asset in assets() if asset.kind in KINDS]
        state = self.lab_state
        self._choices = {}
        for side, words in (
            ("source", "The model's own tokenizer"),
            ("target", "The tokenizer it shall get"),
        ):
            box = w.Combobox(
                value=getattr(state, side), options=names, ensure_option=False, continuous_update=False,
                description=side.capitalize(), placeholder="name, path or hub id", tooltip=words,
            )  # fmt: skip
            box.add_class(f"tl-{side}")
            box.observe(
                self.guarded(lambda change, side=side: setattr(state, side, change["new"].strip())),
                names="value",
            )
            self._choices[side] = box
        swap = button("Swap", self.swap, "tl-swap", "Exchange source and target")
        self._fetch = button("Fetch what is missing", lambda: self._show(fetch=True), "tl-fetch")
        self._fetch.layout.display = "none"
        self._card, self._chips = w.HTML(), w.HTML()
        self._card.add_class("tl-card-of-pair")
        self._chips.add_class("tl-both")
        self._sentence = w.Textarea(
            value=state.sentence, description="Your text", rows=2, layout=w.Layout(width="100%"),
        )  # fmt: skip
        self._sentence.add_class("tl-sentence")
        self._sentence.observe(self.guarded(self._on_sentence), names="value")
        heading = w.HTML(
            "<h3>Tokenizer pair</h3><div class='tl-note'>Choose from the list, or give a folder, a tokenizer.json, a "
            "SentencePiece or tiktoken file, a GGUF, or a hub id. Nothing is fetched without asking.</div>"
        )
        self._fill(
            [
                heading,
                bar(*self._choices.values(), swap, self._fetch),
                self._card,
                self._sentence,
                self._chips,
            ]
        )

    @property
    def selection(self) -> pd.DataFrame:
        """The pair: name, size and kind of both sides, as far as they are loaded."""
        rows = []
        for side in ("source", "target"):
            name = getattr(self.lab_state, side)
            known = self._loaded.get(name)
            rows.append((side, name, known.size if known else None, known.kind if known else None))
        return pd.DataFrame(rows, columns=["side", "name", "size", "kind"])

    def swap(self) -> None:
        """Exchange source and target."""
        state = self.lab_state
        with state.hold_trait_notifications():
            state.source, state.target = state.target, state.source

    def refresh(self) -> None:
        """Show the pair that the state names; loading happens away from the callback."""
        self._show(fetch=False)

    def _show(self, fetch: bool) -> None:
        names = self.lab_state.source, self.lab_state.target
        missing = [] if fetch else [name for name in names if to_fetch(name)]
        self._fetch.layout.display = "" if missing else "none"
        if missing:
            self._card.value = offers_html(missing)
            self._chips.value = ""
            return
        self.clear_error()
        if not all(name in self._loaded for name in names):
            self._card.value = '<div class="tl-note" role="status">Loading both tokenizers …</div>'

        def work(is_current: Callable[[], bool]) -> None:
            try:
                pair = [self._vocabulary(name) for name in names]
                card = card_html(pair[0], pair[1], self._shared(pair[0], pair[1]))
            except Exception as error:
                if is_current():
                    self._card.value = self._chips.value = ""
                    self.show_error(error)
                return
            if is_current() and not self.closed:
                self._card.value = card
                self._show_text()

        self._latest.submit(work)

    def _vocabulary(self, name: str) -> Vocabulary:
        if not name:
            raise InputError("Name both a source and a target tokenizer.")
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _shared(self, source: Vocabulary, target: Vocabulary) -> Overlap:
        key = source.fingerprint, target.fingerprint
        if self._overlap is None or self._overlap[:2] != key:
            self._overlap = (*key, overlap(source, target))
        return self._overlap[2]

    def _show_text(self) -> None:
        pair = [self._loaded.get(name) for name in (self.lab_state.source, self.lab_state.target)]
        text = self._sentence.value

        def work(is_current: Callable[[], bool]) -> None:
            if pair[0] is None or pair[1] is None:
                return
            try:
                html = pair_html(pair[0], pair[1], text) if text else '<div class="tl-empty">Type a text above.</div>'
            except Exception as error:
                self.show_error(error)
                return
            if is_current() and not self.closed:
                self._chips.value = html

        self._latest_text.submit(work)

    def _on_names(self, _change: Any) -> None:
        for side, box in self._choices.items():
            box.value = getattr(self.lab_state, side)
        self.refresh()

    def _on_sentence(self, change: Any) -> None:
        self.lab_state.sentence = change["new"]
        self._show_text()


def to_fetch(name: str) -> bool:
    """Whether a name is the catalogue's and not on this machine yet."""
    return name in _catalogue() and cached_path(name) is None


def _catalogue() -> set[str]:
    return {asset.name for asset in assets()}


def offers_html(names: list[str]) -> str:
    """Say what fetching these assets means: size, origin and licence."""
    lines = "".join(
        f"<li><b>{escape(asset.name)}</b>: {escape(asset.description)}. {asset.size_bytes / 1e6:.0f} MB from "
        f"{escape(asset.origin)}; licence {escape(asset.licence)}.</li>"
        for asset in map(find, names)
    )
    return f"<p>Not on this machine yet; press “Fetch what is missing” to get:</p><ul>{lines}</ul>"


def card_html(source: Vocabulary, target: Vocabulary, shared: Overlap) -> str:
    """Both tokenizers side by side, and how much they share."""
    rows = [
        ("Tokens", *(f"{int((~v.is_hole).sum()):,}" for v in (source, target))),
        ("Algorithm", *(escape(_algorithm(v)) for v in (source, target))),
        ("Special tokens", *(_roles_html(v) for v in (source, target))),
        ("Licence", *(escape(_licence(v.name)) for v in (source, target))),
    ]
    cells = "".join(f'<div class="tl-key">{key}</div><div>{a}</div><div>{b}</div>' for key, a, b in rows)
    head = f"<div></div><div><b>Source: {escape(source.name)}</b></div><div><b>Target: {escape(target.name)}</b></div>"
    return (
        f'<div class="tl-sides">{head}{cells}</div><div class="tl-cards">'
        f'<div class="tl-card"><div class="tl-card-value">{shared.raw_share:.1%}</div><div class="tl-card-name">of the '
        f"target found as a string ({shared.raw_count:,})</div></div>"
        f'<div class="tl-card"><div class="tl-card-value">{shared.bytes_share:.1%}</div><div class="tl-card-name">of '
        f"the target found as bytes ({shared.bytes_count:,})</div></div></div>"
        '<div class="tl-note">Ġthe, ▁the and “ the” are one token: the same bytes, other strings. '
        "The lab compares bytes.</div>"
    )


def _algorithm(vocabulary: Vocabulary) -> str:
    model = type(vocabulary.tokenizer.backend_tokenizer.model).__name__
    return f"{model}, {vocabulary.kind}"


def _roles_html(vocabulary: Vocabulary) -> str:
    roles = [
        f'{escape(ROLE_WORDS[role])} <span class="tl-token">{escape(vocabulary.raw_token(i))}</span>'
        for role, i in vocabulary.roles.items()
    ]
    others = int(vocabulary.is_control.sum()) - len(set(vocabulary.roles.values()))
    return ", ".join(roles) + (f", and {others} more" if others > 0 else "") or "none"


def _licence(name: str) -> str:
    if name in _catalogue():
        return find(name).licence
    return "see its folder" if Path(name).expanduser().exists() else "see its page on the hub"
