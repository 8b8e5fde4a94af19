"""The button "Is it worth it?", the verdict of `evaluation.advice` on the swap, and its reasons."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from tokalign_lab.evaluation.compression import LANGUAGES
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.queue import find_or_start

from ..common.job import RunBox
from ..common.numbers import Number, cards, meanings, share
from ..common.part import Folds, html, shown
from ..common.state import LabState

_TONES = {"swap": "ok", "swap for some": "warn", "extend": "warn", "do not swap": "poor"}
_KEYS = ("saved", "faster", "recovered", "context")


class AdviceBox(RunBox):
    """Starts an "advise" run, and shows its result.

    Parameters
    ----------
    settings : returns the settings of an "align" run, for its pair and text
    state : shared view, for the panel of the run
    root : folder of the runs; by default `runs_root()`
    """

    def __init__(self, settings: Callable[[], Mapping[str, Any]], state: LabState, root: Path | str | None) -> None:
        super().__init__(state)
        self._settings, self._root = settings, root
        self.ask_button = self.button(
            "Is it worth it?", self.ask,
            "Estimate tokens saved, speed, memory and quality before you start; takes about a minute",
        )  # fmt: skip
        self.card, self._details = html(), html()
        self._folds = Folds({"Reasons": ("figures by slice of the text, costs, measured runs", [self._details])})
        shown(self._folds, False)
        self._about = object()  # identifies the chosen pair
        self.children = (self.job, self.card, self._folds)

    def ask(self) -> None:
        """Start the run, or show an earlier run with the same settings."""
        chosen = self._settings()
        asked = {"model": chosen["source"], "target": chosen["target"], "text": list(chosen["text"])}
        asked |= {name: chosen[name] for name in ("max_bytes", "seed") if chosen.get(name)}
        title, about = f"Is {asked['target']} worth it for {asked['model']}?", self._about

        def work() -> None:
            run = find_or_start("advise", asked, self._root)
            if about is self._about:
                self.watch_run(run, title, then=self._show)

        self.soon(work, self.ask_button)

    def forget(self) -> None:
        """Clear the advice; for when another pair is chosen."""
        self._about = object()
        self.leave_run()
        self.card.value = ""
        shown(self._folds, False)

    def _show(self, run: RunFolder) -> None:
        advice = json.loads((run.path / "advice.json").read_text(encoding="utf-8"))
        self.card.value = advice_html(advice)
        self._details.value = reasons_html(advice)
        shown(self._folds, True)
        self.leave_run()


def advice_html(advice: Mapping[str, Any]) -> str:
    """Return verdict, reason and four numbers as HTML; `advice` is `Advice.to_dict()`."""
    verdict = str(advice["verdict"])
    return (
        f'<div class="tl-verdict" role="status"><span class="tl-state tl-severity-mark-{_TONES.get(verdict, "warn")}">'
        f"{escape(verdict)}</span> {escape(str(advice['reason']))}</div>{cards(_numbers(advice['all']))}"
    )


def _numbers(one: Mapping[str, Any]) -> list[Number]:
    low, high = one["loss_recovered"]["low"], one["loss_recovered"]["high"]
    gained = one["context_gained_bytes"]
    found = {
        "saved": share(one["saved"]),
        "faster": f"{one['faster'][1]:.2f}",
        "recovered": f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}",
        "context": None if gained is None else f"{gained:+,}",
    }
    return [(key, value) for key, value in found.items() if value is not None]


def reasons_html(advice: Mapping[str, Any]) -> str:
    """Return the advice by slice and the costs of the swap, as HTML."""
    lines = "".join(
        f"<tr><th scope='row'>{escape(one['slice'])} <small>{LANGUAGES.get(one['slice'], '')}</small></th>"
        f"<td class='tl-number'>{one['n_bytes']:,}</td>"
        + "".join(f"<td class='tl-number'>{value}</td>" for _, value in _numbers({**one, "context_gained_bytes": None}))
        + f"<td>{escape(str(one['verdict']))}</td></tr>"
        for one in advice["slices"]
    )
    sizes, step, rows = advice["sizes"], advice["step"], advice["rows"]
    facts = {
        "Million parameters": f"{sizes['source_weights'] / 1e6:,.0f} → {sizes['target_weights'] / 1e6:,.0f}",
        "Memory as saved": f"{sizes['source_bytes'] / 1e9:.2f} → {sizes['target_bytes'] / 1e9:.2f} GB",
        "Timed on": f"{step['device']}, {step['dtype']}",
        "New rows": f"{rows['new']:,}; {share(rows['new_share_of_text_tokens'])} of the text's tokens",
        "Never in the text": f"{rows['not_in_the_text']:,} of {rows['text_tokens']:,} tokens",
    }
    listed = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    runs = dict.fromkeys(str(run) for one in advice["slices"] for run in one["loss_recovered"]["runs"])
    heads = ("Bytes", "Tokens saved", "Times the speed", "Times the bits")
    head = "".join(f"<th scope='col' class='tl-number'>{name}</th>" for name in heads)
    return (
        f"<div class='tl-table-scroll'><table class='tl-plain'><thead><tr><th scope='col'>Text</th>{head}"
        f"<th scope='col'>Verdict</th></tr></thead><tbody>{lines}</tbody></table></div><dl>{listed}</dl>"
        f"<div class='tl-note'>Expected quality comes from measured runs: {escape(', '.join(runs))}.</div>"
        f"{meanings(_KEYS)}"
    )
