// A histogram whose bars are buttons. The kernel counts; this draws the bars and a table of the same counts, and reports
// which bar was clicked.

function node(tag, content, className) {
  const made = document.createElement(tag);
  if (content !== undefined) made.textContent = content;
  if (className) made.className = className;
  return made;
}

function bars(model) {
  const items = model.get("bars");
  const tallest = Math.max(1, ...items.map((item) => Math.sqrt(item.n)));
  const row = node("div", undefined, "tl-hist-bars");
  row.setAttribute("role", "group");
  row.setAttribute("aria-label", `${model.get("name")}: click a bar to filter`);
  items.forEach((item, index) => {
    const button = node("button", undefined, "tl-hist-bar");
    button.type = "button";
    button.dataset.index = index;
    const words = `${item.label}: ${item.n.toLocaleString("en")} tokens`;
    button.title = words;
    button.setAttribute("aria-label", words);
    button.setAttribute("aria-pressed", String(item.on));
    const fill = node("span", undefined, "tl-hist-fill");
    fill.style.height = `${Math.round((100 * Math.sqrt(item.n)) / tallest)}%`;
    button.append(fill);
    button.addEventListener("click", () => model.send({ pressed: index }));
    row.append(button);
  });
  return row;
}

function table(model) {
  const details = node("details", undefined, "tl-note");
  details.open = model.get("unfolded");
  details.addEventListener("toggle", () => {
    model.set("unfolded", details.open);
    model.save_changes();
  });
  details.append(node("summary", "Show as a table"));
  const made = node("table", undefined, "tl-table tl-hist-table");
  const head = node("tr");
  head.append(node("th", model.get("name")), node("th", "Tokens", "tl-number"), node("th", "Filter"));
  made.append(head);
  for (const item of model.get("bars")) {
    const line = node("tr");
    line.append(node("td", item.label), node("td", item.n.toLocaleString("en"), "tl-number"));
    line.append(node("td", item.on ? "on" : ""));
    made.append(line);
  }
  details.append(made);
  return details;
}

function render({ model, el }) {
  const box = node("div", undefined, "tl-hist");
  el.append(box);
  const draw = () => {
    const focused = box.contains(document.activeElement) ? document.activeElement.dataset.index : undefined;
    const ends = node("div", undefined, "tl-hist-ends");
    const items = model.get("bars");
    ends.append(node("span", items[0]?.label ?? ""), node("span", model.get("caption")), node("span", items.at(-1)?.label ?? ""));
    box.replaceChildren(bars(model), ends, table(model));
    if (focused !== undefined) box.querySelector(`[data-index="${focused}"]`)?.focus({ preventScroll: true });
  };
  draw();
  for (const name of ["bars", "name", "caption"]) model.on(`change:${name}`, draw);
}

export default { render };
