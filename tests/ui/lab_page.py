"""JupyterLab for tests: open, run, switch theme, kill the kernel, read panels."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import nbformat
from playwright.sync_api import Locator, Page, expect

from .servers import Server

START_MS = 120_000
SHORT_MS = 60_000  # default time limit, for a response of the kernel on a busy two-core machine
TABS = ("Pair", "Lexicon", "Maps", "Diagnosis", "Model", "Recovery", "Export", "Compare", "Runs", "Report")
LONG_MS = 300_000  # align and rearrange on a busy two-core machine
# Messages of JupyterLab itself when a test kills a kernel or reloads a page: saved outputs name widgets that no longer
# exist.
EXPECTED = (
    "widget model not found",
    "Failed to initialize model",
    "WebSocket",
    "Connection lost",
    "Canceled future",
    "Kernel is dead",
    "kernel connection",
    "Failed to load resource",
)

expect.set_options(timeout=SHORT_MS)

MAPS = """((what) => Object.fromEntries(["source", "target"].map((space) => {
    const canvas = [...document.querySelectorAll(`.tl-map-${space}`)].at(-1).querySelector("canvas");
    return [space, canvas.parentElement.parentElement.api.get(what)];
})))"""

STILL = """() => new Promise((done) => {
    let quiet;
    const end = () => { watcher.disconnect(); clearTimeout(quiet); done(); };
    const watcher = new MutationObserver(() => { clearTimeout(quiet); quiet = setTimeout(end, 400); });
    watcher.observe(document.body, { attributes: true, characterData: true, childList: true, subtree: true });
    quiet = setTimeout(end, 400);
    setTimeout(end, 2000);
})"""

# Finds text with a contrast to its background below WCAG AA: 4.5, or 3 for large text; not in disabled controls.
FAINT = """(root) => {
    const parts = (colour) => (colour.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
    const alpha = (colour) => parts(colour)[3] ?? 1;
    const over = (top, bottom, share) => bottom.map((value, i) => share * top[i] + (1 - share) * value);
    const luminance = (colour) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
        const value = colour[i] / 255;
        return sum + weight * (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    }, 0);
    const behind = (element) => {
        if (!element) return [255, 255, 255];
        const colour = getComputedStyle(element).backgroundColor;
        return alpha(colour) === 1 ? parts(colour) : over(parts(colour), behind(element.parentElement), alpha(colour));
    };
    const opacity = (element) => element ? getComputedStyle(element).opacity * opacity(element.parentElement) : 1;
    const found = [];
    const check = (element, text, style) => {
        if (!text.trim() || element.closest(":disabled, option, style, script, .tl-hidden")) return;
        if (!element.checkVisibility({ opacityProperty: true })) return;
        const ground = behind(element);
        const ink = element instanceof SVGElement ? style.fill : style.color;
        const seen = over(parts(ink), ground, alpha(ink) * opacity(element));
        const [dark, bright] = [luminance(seen), luminance(ground)].sort((a, b) => a - b);
        const size = parseFloat(style.fontSize);
        const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
        const ratio = (bright + 0.05) / (dark + 0.05);
        if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)}, ${ink} on ${ground.map(Math.round)}: ${text}`);
    };
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        check(element, walker.currentNode.data, getComputedStyle(element));
    }
    for (const control of root.querySelectorAll("input, select, textarea")) {
        check(control, control.value || "", getComputedStyle(control));
        if (!control.value) check(control, control.placeholder || "", getComputedStyle(control, "::placeholder"));
    }
    return [...new Set(found)];
}"""
# Finds controls and numbers without a tooltip, or with one that repeats the label, as ipywidgets' own for a check box.
UNEXPLAINED = """(root) => [...root.querySelectorAll("button, input, select, textarea, .tl-card, .widget-hprogress")]
    .filter((one) => one.dispatchEvent(new Event("pointerover", { bubbles: true })))
    .filter((one) => {
        const owner = one.closest("[title]:not([title='']), [data-title]");
        const label = (one.type === "checkbox" ? one.parentElement : one).textContent.trim();
        return !owner || (label && owner.title === label);
    })
    .map((one) => `${one.tagName} ${one.className} ${one.ariaLabel ?? one.textContent}`)"""


class LabPage:
    """One page of JupyterLab with one notebook."""

    def __init__(self, page: Page, url: str, token: str) -> None:
        self.page = page
        page.set_default_timeout(SHORT_MS)
        self._url, self._token = url, token
        self.errors: list[str] = []
        self._deaf = False
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self._hear(f"page error: {error.stack or error}"))

    def _on_console(self, message: Any) -> None:
        if message.type == "error":
            self._hear(f"{message.text} ({message.location.get('url', '')})")

    def _hear(self, text: str) -> None:
        if not (self._deaf and any(word in text for word in EXPECTED)):
            self.errors.append(f"{text}, during {os.environ.get('PYTEST_CURRENT_TEST')}")

    @contextmanager
    def losing_the_page(self) -> Iterator[None]:
        """Reload without saving; within the block, JupyterLab's messages about closed panels are ignored."""
        self._deaf = True
        self.page.reload()
        self.wait_for_kernel()
        yield
        self._deaf = False

    def open(self, notebook: str) -> None:
        """Open a notebook and wait until its kernel is idle."""
        self.page.goto(f"{self._url}/lab/tree/{notebook}?token={self._token}&reset", timeout=START_MS)
        self.wait_for_kernel()
        self.page.evaluate("jupyterapp.shell.collapseLeft()")

    def wait_for_kernel(self, status: str = "idle", timeout: float = START_MS) -> None:
        """Wait until the kernel of the notebook has this status."""
        self.page.wait_for_function(
            f"() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === '{status}'",
            timeout=timeout,
        )

    def command(self, name: str, **arguments: Any) -> None:
        """Start a command of JupyterLab without waiting for its end."""
        self.page.evaluate("([name, given]) => { jupyterapp.commands.execute(name, given); }", [name, arguments])

    def run_all(self) -> None:
        """Run all cells from the first on."""
        self.command("notebook:run-all-cells")

    def kill_kernel(self) -> None:
        """Restart the kernel: a new process without any variables."""
        self._deaf = True
        # The old status stays until the new kernel answers; requests before that are lost.
        self.page.evaluate(
            "async () => { const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;"
            " await kernel.restart();"
            " const ask = () => kernel.requestKernelInfo().catch(() => undefined);"
            " const wait = () => new Promise((resolve) => setTimeout(resolve, 2000));"
            " while (!(await Promise.race([ask(), wait()]))); }"
        )
        self.wait_for_kernel()

    def theme(self, name: str) -> None:
        """Switch JupyterLab's theme."""
        self.command("apputils:change-theme", theme=name)
        expect(self.page.locator("body")).to_have_attribute(
            "data-jp-theme-light", "false" if "Dark" in name else "true"
        )
        self.settle()  # the kernel learns the theme and sends new colours

    def settle(self) -> None:
        """Wait until the page has not changed for 0.4 s, at most 2 s; only for screenshots, not for assertions."""
        self.page.evaluate(STILL)

    def panel(self, hook: str) -> Locator:
        """Return a panel by its class, scrolled into view; cells far from the window are not in the page."""
        made = self.page.locator(f".{hook}").last
        made.wait_for(state="attached", timeout=START_MS)
        made.scroll_into_view_if_needed()
        return made

    def wait_for_new_panel(self, hook: str, timeout: float) -> None:
        """After the kernel was killed, wait until the cell has run again and its old panel is gone.

        Only cells near the window are in the page, so this scrolls to the end repeatedly.
        """
        last = self.page.evaluate("jupyterapp.shell.currentWidget.content.widgets.length") - 1
        alive = self.page.locator(f".{hook}:not(.jupyter-widgets-disconnected)")
        dead = self.page.locator(f".{hook}.jupyter-widgets-disconnected")
        deadline = time.monotonic() + timeout / 1000
        while time.monotonic() < deadline:
            self.cell(last)
            self.page.wait_for_timeout(1000)
            if alive.count() and not dead.count():
                return
        self.page.screenshot(path="test-artefacts/no-new-panel.png")
        raise AssertionError(
            f"after {timeout / 1000:.0f} s: {alive.count()} living, {dead.count()} dead .{hook}; errors {self.errors}; "
            f"failed cells {self.failed_cells()}"
        )

    def failed_cells(self) -> list[str]:
        """Return name and message of the error of each failed cell."""
        return list(
            self.page.evaluate(
                "() => jupyterapp.shell.currentWidget.content.model.toJSON().cells.flatMap((c) => c.outputs ?? [])"
                ".filter((o) => o.output_type === 'error').map((o) => [o.ename, o.evalue, ...o.traceback].join(' | '))"
            )
        )

    def cell(self, index: int) -> None:
        """Scroll a cell into view."""
        self.page.evaluate("(i) => { jupyterapp.shell.currentWidget.content.scrollToItem(i); }", index)

    def traces(self, hook: str) -> list[dict[str, int]]:
        """Return name and number of points of each trace in a panel's figure."""
        return self.page.locator(f".{hook} .js-plotly-plot").last.evaluate(
            "(figure) => figure.data.map((t) => ({name: t.name, n: t.x ? (t.x.length ?? 0) : 0}))"
        )

    def maps(self, what: str) -> dict[str, Any]:
        """Return a property of regl-scatterplot for each of the last maps in the page, once they are drawn."""
        self.page.locator(".tl-map-layer[data-ready]").last.wait_for(state="attached", timeout=LONG_MS)
        return dict(self.page.evaluate(f"(what) => {MAPS}(what)", what))

    def wait_for_selected(self, condition: str) -> None:
        """Wait until the number `n` of highlighted points satisfies a condition on both maps."""
        numbers = f"Object.values({MAPS}('selectedPoints')).map((points) => points.length)"
        self.page.wait_for_function(f"() => {numbers}.every((n) => {condition})")

    def wait_for_ink(self, hook: str, dark: bool) -> None:
        """Wait until the text in a panel's figure is light on dark, or dark on light."""
        self.page.wait_for_function(
            "([figure, dark]) => { const all = [...document.querySelectorAll(figure)];"
            " return (parseInt(all.at(-1)._fullLayout.font.color.slice(1, 3), 16) > 128) === dark; }",
            arg=[f".{hook} .js-plotly-plot", dark],
        )

    def faint_text(self, hook: str) -> list[str]:
        """Return texts in a part of the page with too low a contrast: ratio, colours and words of each."""
        return self._left(hook, FAINT)

    def unexplained(self, hook: str) -> list[str]:
        """Return controls and numbers in a part of the page without a tooltip."""
        return self._left(hook, UNEXPLAINED)

    def _left(self, hook: str, script: str) -> list[str]:
        """Repeat the search until nothing is found, since opened parts may still change; return the last result."""
        deadline = time.monotonic() + SHORT_MS / 1000
        while found := list(self.page.locator(f".{hook}").last.evaluate(script)):
            if time.monotonic() > deadline:
                break
            self.page.wait_for_timeout(500)
        return found


@contextmanager
def lab_in_a_cell(server: Server, browser: Any, name: str, call: str, ready: str) -> Iterator[LabPage]:
    """Run a notebook with one cell, in which `call` makes the lab; wait until the selector `ready` matches."""
    cell = nbformat.v4.new_code_cell(f"from tokalign_lab.widgets import Lab\n\n{call}")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel})
    nbformat.write(notebook, server.folder / "notebooks" / f"{name}.ipynb")
    page: Page = browser.new_page(viewport={"width": 1280, "height": 1700})  # a whole panel fits into a screenshot
    made = LabPage(page, server.url, server.token)
    made.open(f"notebooks/{name}.ipynb")
    made.run_all()
    expect(page.locator(ready).first).to_be_visible(timeout=LONG_MS)
    yield made
    page.close()


def open_tab(lab: LabPage, name: str) -> Locator:
    """Open a tab of the lab and return its box when it is built."""
    lab.page.get_by_role("tab", name=name, exact=True).click()
    box = lab.page.locator(f".tl-tab-{name.lower()}")
    expect(box).to_be_visible(timeout=SHORT_MS)
    expect(box.get_by_text("Opening …")).to_have_count(0, timeout=LONG_MS)
    return box
