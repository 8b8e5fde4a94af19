"""The settings of an alignment, its estimated cost, and the button that starts it.

The form starts nothing itself: it calls `on_run(settings)`, which the owner of the panel provides. If something is
missing, the button is disabled, and a sentence next to it names what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w

from tokalign_lab import catalog
from tokalign_lab.alignment.registry import RECIPES
from tokalign_lab.catalog.choices import Choice, where_from
from tokalign_lab.estimate import Estimate, estimate, size_of_model, size_of_texts, to_download
from tokalign_lab.runs.words import duration

from ..common.part import Box, bar, html

SIZES = {
    "all": 0, "0.3 MB": 300_000, "1 MB": 1_000_000, "2 MB": 2_000_000, "5 MB": 5_000_000,
    "20 MB": 20_000_000, "100 MB": 100_000_000,
}  # fmt: skip
DEFAULTS: dict[str, Any] = {"recipe": "anchored", "text": ["default"], "max_bytes": None, "seed": 0, "rearrange": False}
ALONE = "This panel is not attached to a Lab, so it cannot start runs; open it with Lab().pair_picker()."


class RunForm(Box):
    """Starts an align run and shows its estimated cost; the settings are in the separate box `more`.

    Parameters
    ----------
    pair : returns the names of source and target, and their sizes, or None until both are loaded
    on_run : called with the settings; None disables the button
    settings : initial values; see `DEFAULTS`
    """

    def __init__(
        self,
        pair: Callable[[], tuple[str, str, tuple[int, int] | None]],
        on_run: Callable[[dict[str, Any]], None] | None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._pair, self._on_run = pair, on_run
        chosen = DEFAULTS | dict(settings or {})
        sizes = list(SIZES.items())
        size = chosen["max_bytes"] or 0  # None would mean "nothing selected" to a menu
        if size not in SIZES.values():
            sizes.append((f"{size / 1e6:g} MB", size))

        def changed(_value: object) -> None:
            self.refresh()

        self._recipe = self.menu(
            "Recipe", changed, options=list(RECIPES), value=chosen["recipe"], tooltip="How the new rows are computed"
        )
        texts = [asset.name for asset in catalog.assets() if asset.kind == "text"]
        self._text = self.control(
            w.Combobox, "Text to learn from", changed, value="; ".join(chosen["text"]), options=texts,
            ensure_option=False, continuous_update=False,
            placeholder="default, a file, a folder or hub:org/name; separate several by ;",
            tooltip="Text to learn token vectors from; choose text like the model's future input",
        )  # fmt: skip
        self._size = self.menu(
            "Amount of text", changed, options=sizes, value=size, tooltip="More text gives better vectors"
        )
        self._seed = self.control(
            w.BoundedIntText,
            "Seed",
            changed,
            value=chosen["seed"],
            min=0,
            max=2**31 - 1,
            tooltip="Another seed chooses another held-out part",
        )
        self._seed.layout.width = "130px"
        self._rearrange = self.control(
            w.Checkbox, "Also rearrange the model", changed, value=chosen["rearrange"],
            indent=False, tooltip="Make the model as soon as the alignment has finished",
        )  # fmt: skip
        self._about, self._cost = html(), html("tl-cost")
        self._run = self.button("Run alignment", self.run, "Align this pair in a separate process", "primary")
        self.more = Box([bar(self._recipe, self._text, self._size, self._seed, self._rearrange), self._about])
        self.row = bar(self._run, self._cost)
        super().__init__([self.row])
        self.add_class("tl-run-form")

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the next run, with `donor` and `model` only if the recipe needs them."""
        source, target, _ = self._pair()
        method = RECIPES[self._recipe.value]
        return {
            "source": source,
            "target": target,
            "recipe": self._recipe.value,
            "text": [part.strip() for part in self._text.value.split(";") if part.strip()],
            "max_bytes": self._size.value or None,
            "seed": self._seed.value,
            "rearrange": self._rearrange.value,
            **({"model": source} if method.needs_model else {}),
            **({"donor": target} if method.needs_donor else {}),
        }

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that differ from the defaults, without the pair."""
        settings = self.settings
        return {name: settings[name] for name, value in DEFAULTS.items() if settings[name] != value}

    def run(self) -> None:
        """Call `on_run` in a thread, because starting a process takes a moment and may fail."""
        on_run, settings = self._on_run, self.settings
        if on_run is not None and not self._run.disabled:
            self.soon(lambda: on_run(settings))

    def refresh(self) -> None:
        """Show what the recipe does, and either the estimated cost of the run or why it cannot start."""
        self._about.value = about_html(self._recipe.value)
        settings, sizes, on_run = self.settings, self._pair()[2], self._on_run

        def work(_wanted: object) -> tuple[str, str]:
            missing = why_not(settings, where_from(settings["source"]), where_from(settings["target"]), sizes)
            words = "" if missing else cost_html(cost_of(settings, sizes))
            return words, missing or ALONE * (on_run is None)

        def show(found: tuple[str, str]) -> None:
            words, missing = found
            reason = f'<div class="tl-reason">{escape(missing)}</div>' * bool(missing)
            self._cost.value = f'<div role="status">{words}{reason}</div>'
            self._run.disabled = bool(missing)

        self.newest(work, show)


def about_html(recipe: str) -> str:
    """Describe a recipe and, collapsed, all others."""
    others = "".join(f"<dt>{escape(name)}</dt><dd>{escape(each.description)}</dd>" for name, each in RECIPES.items())
    return (
        f'<div class="tl-note"><b>{escape(recipe)}</b>: {escape(RECIPES[recipe].description)}.'
        f"<details><summary>What every recipe does</summary><dl>{others}</dl></details></div>"
    )


def why_not(settings: Mapping[str, Any], source: Choice, target: Choice, sizes: tuple[int, int] | None) -> str:
    """Return why the run cannot start, as a sentence; "" if it can."""
    if not settings["source"] or not settings["target"]:
        return "Choose both a source and a target."
    if sizes is None:
        return "Both tokenizers have to be loaded first; see above."
    if not settings["text"]:
        return "Choose a text to learn from."
    for text in settings["text"]:
        packaged = catalog.is_known(text) and catalog.find(text).kind == "text"
        if not text.startswith("hub:") and not packaged and not Path(text).expanduser().exists():
            return f"There is no text '{text}'; give a file, a folder, 'default', or hub:org/name."
    method = RECIPES[settings["recipe"]]
    wants_model = "rearranging" if settings["rearrange"] else f"the recipe {settings['recipe']}"
    if (settings["rearrange"] or method.needs_model) and source.kind != "model" and source.here:
        return f"The source '{source.name}' is a tokenizer without a model, and {wants_model} needs the model."
    if method.needs_donor and target.kind != "model" and target.here:
        return f"The recipe {settings['recipe']} needs a model that has the target tokenizer; choose one as target."
    return ""


def cost_of(settings: Mapping[str, Any], sizes: tuple[int, int] | None) -> Estimate:
    """Estimate the cost of a run with these settings."""
    assert sizes is not None  # checked by why_not
    return estimate(
        settings["recipe"],
        sizes,
        size_of_texts(settings["text"], settings["max_bytes"]),
        model_bytes=size_of_model(settings["source"]) if settings["rearrange"] else 0,
        downloads=to_download([settings["source"], settings["target"], *settings["text"]]),
    )


def cost_html(cost: Estimate) -> str:
    """Return an estimate as HTML, with its steps collapsed."""
    fetch = f"{cost.download_bytes / 1e6:,.0f} MB" if cost.download_bytes else "nothing"
    steps = ", ".join(f"{name} {duration(seconds)}" for name, seconds in cost.steps.items())
    return (
        f"About <b>{duration(cost.seconds)}</b> on this machine when idle, about "
        f"<b>{cost.memory_bytes / 1e9:.1f} GB</b> of memory, <b>{fetch}</b> to download."
        f"<details><summary>By step</summary>{escape(steps)}. {escape(cost.note)}</details>"
    )
