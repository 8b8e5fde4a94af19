// Shows HTML from the kernel, and reports the element with data-press that is chosen by a click, Enter or space. Arrow
// keys move from one to the next, so that one Tab leaves them. New HTML keeps the focus and what is unfolded.

function render({ model, el }) {
  const parts = () => [...el.querySelectorAll("[data-press]")];
  const press = (part) => model.send({ pressed: part.dataset.press });
  el.addEventListener("click", (event) => {
    const part = event.target.closest("[data-press]");
    if (part) press(part);
  });
  el.addEventListener("keydown", (event) => {
    const part = event.target.closest("[data-press]");
    if (!part) return;
    const all = parts();
    const at = all.indexOf(part);
    const next = { ArrowLeft: all[at - 1], ArrowRight: all[at + 1] }[event.key];
    if (event.key === "Enter" || event.key === " ") press(part);
    else if (next) {
      part.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    } else return;
    event.preventDefault();
    event.stopPropagation(); // else JupyterLab handles the arrow key too
  });
  const draw = () => {
    const focused = parts().indexOf(document.activeElement);
    const unfolded = [...el.querySelectorAll("details")].map((one) => one.open);
    el.innerHTML = model.get("html");
    el.querySelectorAll("details").forEach((one, i) => { one.open = unfolded[i] ?? one.open; });
    const first = parts()[Math.max(focused, 0)];
    first?.setAttribute("tabindex", "0");
    if (focused >= 0) first?.focus({ preventScroll: true });
  };
  draw();
  model.on("change:html", draw);
}

export default { render };
