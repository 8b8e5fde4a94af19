"""The diagnosis panel without a browser: the verdict, a finding's tokens in the shared view, errors, closing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ipywidgets as w
import numpy as np
import pytest

pytest.importorskip("ipywidgets")

from test_diagnosis import made_of
from tiny import tiny_vocabulary

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.lexicon.rows import LexiconRows
from tokalign_lab.evaluation.diagnosis import Diagnosis
from tokalign_lab.evaluation.finding import MOST_IDS, Finding
from tokalign_lab.vocabulary import Vocabulary
from tokalign_lab.widgets import DiagnosisPanel, LabState
from tokalign_lab.widgets.common.background import inline
from tokalign_lab.widgets.common.state import Query
from tokalign_lab.widgets.lexicon.diagnosis import finding_html


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    with inline():
        yield


@pytest.fixture(scope="module")
def pair() -> tuple[Vocabulary, Vocabulary]:
    return tiny_vocabulary(300), tiny_vocabulary(290)


@pytest.fixture(scope="module")
def lexicon(pair: tuple[Vocabulary, Vocabulary]) -> Lexicon:
    """All targets have the same source, except 20 frequent ones, which have the mean row."""
    source, target = pair
    rows = LexiconRows(target.size)
    rows.fill(np.arange(target.size), "mean")
    for target_id in range(20, target.size):
        rows.copy(target_id, 40, "aligned")
    counts = np.ones(target.size, np.int64)
    counts[:20] = np.arange(100, 120)
    return made_of(rows, source, target, counts)


def finding_button(panel: DiagnosisPanel, name: str) -> Any:
    shows = [row.children[1] for row in panel._list.children]
    return next(show for show in shows if show.tooltip.startswith(f"{name}: "))


def test_the_verdict_is_a_sentence_and_the_worst_finding_comes_first(
    lexicon: Lexicon, pair: tuple[Vocabulary, Vocabulary]
) -> None:
    panel = DiagnosisPanel(lexicon, *pair)
    assert panel.state["verdict"] == "poor"
    assert ">poor</span> Fix the critical findings before" in panel._head.value
    first = panel._list.children[0].children[0].value
    assert "critical" in first
    assert "What to do:" in first
    assert panel.findings["severity"].iloc[0] == "poor"
    assert len(panel._list.children) == len(panel.findings)
    hidden = [row.layout.display == "none" for row in panel._list.children]
    assert hidden == [severity == "ok" for severity in panel.findings["severity"]]
    panel._fine.value = True
    assert all(row.layout.display == "" for row in panel._list.children)


def test_a_click_selects_the_tokens_of_a_finding_and_lists_them_worst_first(
    lexicon: Lexicon, pair: tuple[Vocabulary, Vocabulary]
) -> None:
    state = LabState()
    panel = DiagnosisPanel(lexicon, *pair, state=state)
    press = finding_button(panel, "rows without a source")
    assert press.description == "Show 20 tokens"
    press.click()
    assert state.selection.space == "target"
    assert state.selection.by == "diagnosis"
    assert state.selection.ids == tuple(range(19, -1, -1))  # the most frequent first
    assert state.query == Query(selected=True, sort="worst")
    assert press.button_style == "primary"
    state.select("target", [3], by="lexicon")
    assert press.button_style == ""


def test_every_warning_and_critical_finding_lists_its_tokens(
    lexicon: Lexicon, pair: tuple[Vocabulary, Vocabulary]
) -> None:
    panel = DiagnosisPanel(lexicon, *pair)
    assert panel.diagnosis is not None
    for found in panel.diagnosis.findings:
        ids = found.target_ids
        assert len(ids) == len(set(ids)) <= MOST_IDS, found.name
        assert all(0 <= i < len(lexicon) for i in ids), found.name
    assert {f.name for f in panel.diagnosis.findings if f.severity == "poor" and not f.target_ids} == set()
    assert set(panel.diagnosis.finding("one source for many").target_ids) == set(range(20, len(lexicon)))


def test_a_finding_without_tokens_has_a_disabled_button(lexicon: Lexicon, pair: tuple[Vocabulary, Vocabulary]) -> None:
    panel = DiagnosisPanel(lexicon, *pair, found=Diagnosis([Finding("nothing here", "warn", "Seen.", "Do.")]))
    assert panel._list.children[0].children[1].disabled


def test_a_given_diagnosis_has_no_button_to_refresh_it(lexicon: Lexicon, pair: tuple[Vocabulary, Vocabulary]) -> None:
    for found in (None, Diagnosis([Finding("nothing here", "warn", "Seen.", "Do.")])):
        panel = DiagnosisPanel(lexicon, *pair, found=found)
        names = [one.description for part in _within(panel) for one in part.children if isinstance(one, w.Button)]
        assert names.count("Refresh") == (found is None)
        assert (not panel._again) == (found is not None)  # a button outside the panel would never be closed


def _within(box: w.Box) -> list[w.Box]:
    inner = [child for child in box.children if isinstance(child, w.Box)]
    return [box, *(deeper for child in inner for deeper in _within(child))]


def test_tokens_are_escaped() -> None:
    html = finding_html(Finding("a <b>", "warn", "Saw <script>.", "Do <i>.", examples=["<script>alert(1)</script>"]))
    assert "<script>" not in html
    assert "<i>" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_progress_is_shown_in_words(lexicon: Lexicon, pair: tuple[Vocabulary, Vocabulary]) -> None:
    panel = DiagnosisPanel(lexicon, *pair)
    message: list[str] = []
    panel._head.observe(lambda change: message.append(change["new"]), names="value")
    assert panel._again
    panel._again[0].click()
    assert any(f"Checking {len(lexicon)} rows: choice of partners" in words for words in message)


def test_another_tokenizer_is_refused_in_the_panel(lexicon: Lexicon, pair: tuple[Vocabulary, Vocabulary]) -> None:
    panel = DiagnosisPanel(lexicon, pair[1], pair[0])
    assert "made for the source tokenizer" in panel._error.value
    assert panel.state["verdict"] is None
    assert panel._again
    assert not panel._again[0].disabled


def test_to_code_shows_the_same_view(lexicon: Lexicon, pair: tuple[Vocabulary, Vocabulary]) -> None:
    panel = DiagnosisPanel(lexicon, *pair)
    finding_button(panel, "rows without a source").click()
    lines = panel.to_code().splitlines()
    names: dict[str, Any] = {"lexicon": lexicon, "source": pair[0], "target": pair[1]}
    exec("\n".join([*lines[:-1], f"again = {lines[-1]}"]), names)
    again = names["again"]
    assert again.state == panel.state
    assert finding_button(again, "rows without a source").button_style == "primary"


def test_closed_panels_do_not_react(lexicon: Lexicon, pair: tuple[Vocabulary, Vocabulary]) -> None:
    state = LabState()
    panel = DiagnosisPanel(lexicon, *pair, state=state)
    press = finding_button(panel, "rows without a source")
    panel.close()
    state.select("target", range(19, -1, -1), by="diagnosis")
    assert press.button_style == ""
