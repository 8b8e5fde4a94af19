// Shows HTML from the kernel, and reports the element with data-press that is chosen by a click, Enter or space. The
// arrow keys up and down move between rows. Elements with a negative tabindex share one stop, so that one Tab leaves
// them; left and right move between these. New HTML keeps the focus, what is unfolded, and how far a table is scrolled.

function render({ model, el }) {
  let sharing = []; // elements that share one stop
  const press = (part) => model.send({ pressed: part.dataset.press });
  const stopAt = (part) => sharing.forEach((one) => { one.tabIndex = one === part ? 0 : -1; });
  el.addEventListener("click", (event) => {
    const part = event.target.closest("[data-press]");
    if (part) press(part);
  });
  el.addEventListener("focusin", (event) => {
    if (sharing.includes(event.target)) stopAt(event.target);
  });
  el.addEventListener("keydown", (event) => {
    const part = event.target.closest("[data-press]");
    if (!part) return;
    const together = sharing.includes(part);
    const group = together ? sharing : [...part.parentElement.children];
    const step = together ? { ArrowLeft: -1, ArrowRight: 1 } : { ArrowUp: -1, ArrowDown: 1 };
    const next = group[group.indexOf(part) + step[event.key]];
    if (next) next.focus();
    else if (event.key !== "Enter" && event.key !== " ") return;
    else if (part.tagName !== "BUTTON" && !event.repeat) press(part);
    event.stopPropagation(); // else JupyterLab handles the key too
    if (next || part.tagName !== "BUTTON") event.preventDefault(); // else the browser clicks the button
  });
  const draw = () => {
    const focused = el.contains(document.activeElement) ? document.activeElement.dataset.press : undefined;
    const unfolded = [...el.querySelectorAll("details")].map((one) => one.open);
    const left = el.querySelector(".tl-table-scroll")?.scrollLeft;
    el.innerHTML = model.get("html");
    el.querySelector(".tl-table-scroll")?.scrollTo({ left });
    el.querySelectorAll("details").forEach((one, i) => { one.open = unfolded[i] ?? one.open; });
    const parts = [...el.querySelectorAll("[data-press]")];
    sharing = parts.filter((part) => part.tabIndex < 0);
    stopAt(sharing[0]);
    parts.find((part) => part.dataset.press === focused)?.focus({ preventScroll: true });
  };
  draw();
  model.on("change:html", draw);
}

export default { render };
