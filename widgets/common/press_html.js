// Shows HTML from the kernel, and reports the element with data-press that is chosen by a click, Enter or space. Arrow
// keys move from one to the next. Elements with a negative tabindex share one stop, so that one Tab leaves them. New
// HTML keeps the focus and what is unfolded.

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
    const next = all[all.indexOf(part) + { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key]];
    if (event.key === "Enter" || event.key === " ") press(part);
    else if (next) {
      if (next.tabIndex < 0) [part.tabIndex, next.tabIndex] = [-1, 0];
      next.focus();
    } else return;
    event.preventDefault();
    event.stopPropagation(); // else JupyterLab handles the arrow key too
  });
  const draw = () => {
    const focused = el.contains(document.activeElement) ? document.activeElement.dataset.press : undefined;
    const unfolded = [...el.querySelectorAll("details")].map((one) => one.open);
    el.innerHTML = model.get("html");
    el.querySelectorAll("details").forEach((one, i) => { one.open = unfolded[i] ?? one.open; });
    const again = parts().find((part) => part.dataset.press === focused);
    (again ?? parts()[0])?.setAttribute("tabindex", "0");
    again?.focus({ preventScroll: true });
  };
  draw();
  model.on("change:html", draw);
}

export default { render };
