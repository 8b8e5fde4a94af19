// Reports to Python whether the page is light or dark, now and after each change; sets the panel's accessible name and
// its tooltips; copies text to the clipboard. Without JupyterLab, the page's background colour decides the theme.

// anywidget gives a widget two seconds to start; a slower one never receives messages from its kernel. The 5 MB of code
// of a figure load more slowly while a model is being tuned on the same machine, so this makes anywidget wait a minute.
const { timeout } = AbortSignal;
if (timeout && !timeout.patient) {
  const isPatient = () => new Error().stack?.includes("/anywidget/");
  AbortSignal.timeout = (ms) => timeout.call(AbortSignal, isPatient() ? Math.max(ms, 60_000) : ms);
  AbortSignal.timeout.patient = true;
}

function isDark() {
  const stated = document.body.dataset.jpThemeLight;
  if (stated !== undefined) return stated === "false";
  const channels = getComputedStyle(document.body).backgroundColor.match(/\d+(\.\d+)?/g);
  if (!channels || (channels.length > 3 && Number(channels[3]) === 0)) return false;
  const [red, green, blue] = channels.map(Number);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 128;
}

function watch(model) {
  const report = () => {
    const dark = isDark();
    document.body.classList.toggle("tl-dark", dark);
    if (model.get("dark") === dark && model.get("seen")) return;
    model.set("dark", dark);
    model.set("seen", true);
    try {
      model.save_changes();
    } catch {
      // The panel was closed before its view was drawn, so there is no kernel to report to.
    }
  };
  report();
  const observer = new MutationObserver(report);
  observer.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  return () => observer.disconnect();
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // browsers offer no clipboard to a page from another machine without HTTPS
  }
}

function render({ model, el }) {
  el.style.display = "none";
  requestAnimationFrame(() => {
    const panel = el.closest(".tl-panel");
    if (!panel) return;
    panel.setAttribute("role", "region");
    panel.setAttribute("aria-label", model.get("label"));
    follow.observe(panel);
  });
  const explain = ({ target }) => {
    const control = target.closest?.("[class*=tl-help-]");
    const text = control && model.get("help")[control.className.match(/tl-help-\d+/)[0]];
    if (text) for (const one of [control, ...control.querySelectorAll("[title]")]) one.title = text;
  };
  // plotly measures its width once, before the cell has its final width; later it only reacts to window events
  let width;
  const follow = new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width !== width) window.dispatchEvent(new Event("resize"));
    width = contentRect.width; // a change of height alone must not redraw all figures
  });
  const unwatch = watch(model);
  for (const event of ["pointerover", "focusin"]) document.addEventListener(event, explain);
  const copy = async (message) => {
    if (message.copy !== undefined) model.send({ copied: await copied(message.copy) });
  };
  model.on("msg:custom", copy);
  return () => {
    model.off("msg:custom", copy);
    follow.disconnect();
    unwatch();
    for (const event of ["pointerover", "focusin"]) document.removeEventListener(event, explain);
  };
}

export default { render };
