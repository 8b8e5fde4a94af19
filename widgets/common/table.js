// One page of table rows. The kernel sorts, filters and pages; this draws the rows it gets, and reports clicks on rows
// and column headings. Cells are set as text, never as HTML.

function text(tag, content, className) {
  const node = document.createElement(tag);
  if (content !== undefined) node.textContent = content;
  if (className) node.className = className;
  return node;
}

function heading(column, model) {
  const cell = text("th", undefined, column.numeric ? "tl-number" : "");
  cell.scope = "col";
  if (column.help) cell.title = column.help;
  if (!column.sortable) {
    cell.textContent = column.label;
    return cell;
  }
  const [key, direction] = model.get("sort");
  const sorted = key === column.key;
  cell.setAttribute("aria-sort", sorted ? (direction === "up" ? "ascending" : "descending") : "none");
  const button = text("button", column.label + (sorted ? (direction === "up" ? " ▲" : " ▼") : ""), "tl-sort");
  button.type = "button";
  button.addEventListener("click", () => model.send({ heading: column.key }));
  cell.append(button);
  return cell;
}

function row(item, columns, model) {
  const line = text("tr");
  const chosen = item.key === model.get("chosen");
  line.dataset.key = item.key;
  line.tabIndex = 0;
  line.setAttribute("aria-selected", String(chosen));
  item.cells.forEach((value, index) => {
    const column = columns[index];
    const cell = text("td", undefined, column.numeric ? "tl-number" : "");
    if (column.kind === "token" && value) cell.append(text("span", value, "tl-token"));
    else if (column.kind === "origin") cell.append(text("span", value, `tl-origin tl-origin-${value}`));
    else cell.textContent = column.kind === "token" ? "–" : value; // no frame, unlike a token whose label is –
    if (column.titles?.[value]) cell.title = column.titles[value];
    line.append(cell);
  });
  return line;
}

function render({ model, el }) {
  const scroller = text("div", undefined, "tl-table-scroll");
  const table = text("table", undefined, "tl-table");
  scroller.append(table);
  el.append(scroller);

  const press = (line) => model.send({ row: Number(line.dataset.key) });
  table.addEventListener("click", (event) => {
    const line = event.target.closest("tbody tr");
    if (line) press(line);
  });
  table.addEventListener("keydown", (event) => {
    const line = event.target.closest("tbody tr");
    if (!line) return;
    const next = { ArrowDown: line.nextElementSibling, ArrowUp: line.previousElementSibling }[event.key];
    if (event.key === "Enter" || event.key === " ") press(line);
    else if (next) next.focus();
    else return;
    event.preventDefault();
    event.stopPropagation(); // else JupyterLab handles the arrow key too
  });

  const draw = () => {
    const columns = model.get("columns");
    const focused = table.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
    const head = text("thead");
    const headings = text("tr");
    headings.append(...columns.map((column) => heading(column, model)));
    head.append(headings);
    const body = text("tbody");
    body.append(...model.get("rows").map((item) => row(item, columns, model)));
    table.replaceChildren(text("caption", model.get("caption")), head, body);
    if (focused !== undefined) table.querySelector(`tr[data-key="${focused}"]`)?.focus({ preventScroll: true });
  };
  draw();
  for (const name of ["rows", "columns", "sort", "caption", "chosen"]) model.on(`change:${name}`, draw);
}

export default { render };
