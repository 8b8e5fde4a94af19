// Shows a segmented text as HTML from the kernel, and reports the token chosen by a click, Enter or space. Arrow keys
// move from token to token, so that one Tab leaves the text.

function render({ model, el }) {
  const tokens = () => [...el.querySelectorAll("[data-token]")];
  const press = (token) => model.send({ token: token.dataset.token.split(" ").map(Number) });
  el.addEventListener("click", (event) => {
    const token = event.target.closest("[data-token]");
    if (token) press(token);
  });
  el.addEventListener("keydown", (event) => {
    const token = event.target.closest("[data-token]");
    if (!token) return;
    const all = tokens();
    const at = all.indexOf(token);
    const next = { ArrowLeft: all[at - 1], ArrowRight: all[at + 1] }[event.key];
    if (event.key === "Enter" || event.key === " ") press(token);
    else if (next) {
      token.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    } else return;
    event.preventDefault();
    event.stopPropagation(); // else JupyterLab handles the arrow key too
  });
  const draw = () => {
    el.innerHTML = model.get("html");
    tokens()[0]?.setAttribute("tabindex", "0");
  };
  draw();
  model.on("change:html", draw);
}

export default { render };
