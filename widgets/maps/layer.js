// Draws on top of both maps what jupyter-scatter cannot: lines between partners, signs, labels, the text at the pointer.
// All of it follows pan and zoom in the same frame. New colours and positions are also sent to this layer, in 1 and 8
// bytes per point instead of jupyter-scatter's 12; they wait until the previous drawing has finished.

const SPACES = ["source", "target"];
const SETTLED_MS = 300;
const MANY = 1000; // fewer points are drawn fast, and one highlighted point could not be told from the hovered one
const round = (value) => Math.round(value * 1e4) / 1e4;

// jupyter-scatter draws each map on a hidden canvas as large as the window, and copies the map from it. Without a GPU,
// most of the time goes to pixels that no map shows, so the hidden canvas gets the size of the map before each drawing.
// It also draws highlighted points three times in a row, for an outline. Ours have none, so many are drawn once.
function trim(renderer) {
  if (!renderer || renderer.trimmed) return;
  const { render } = renderer;
  const gl = renderer.canvas.getContext("webgl");
  const drawArrays = gl.drawArrays.bind(gl);
  let counts = []; // numbers of points drawn for this map; the first is that of all points
  gl.drawArrays = (mode, first, count) => {
    const again = mode === gl.POINTS && count >= MANY && counts.length > 1 && counts.at(-1) === count;
    if (mode === gl.POINTS) counts.push(count);
    if (!again) drawArrays(mode, first, count);
  };
  renderer.trimmed = true;
  renderer.render = (draw, map) => {
    const { width, height } = map;
    if (width && height && (renderer.canvas.width !== width || renderer.canvas.height !== height)) {
      renderer.resize((width + 0.5) / devicePixelRatio, (height + 0.5) / devicePixelRatio); // it rounds down
      renderer.refresh();
    }
    counts = [];
    render(draw, map);
  };
}

function sizeOf(api) {
  const { width, height } = api.get("canvas").getBoundingClientRect();
  return { width, height, ratio: width / height };
}

function render({ model, el }) {
  const canvas = el.appendChild(document.createElement("canvas"));
  const pointer = el.appendChild(document.createElement("div"));
  canvas.setAttribute("aria-hidden", "true");
  pointer.className = "tl-map-pointer";
  if (!document.createElement("canvas").getContext("webgl")) {
    el.replaceChildren(pointer);
    el.classList.add("tl-no-webgl");
    pointer.className = "tl-empty";
    pointer.textContent = "The maps need WebGL, which this browser does not offer. Select tokens in the lexicon: " +
      "the tables below then list their partners and neighbours.";
    return undefined;
  }
  pointer.hidden = true;
  let maps; // regl-scatterplot's interface of each map, once both have drawn their points
  let gone = false;
  let settling;
  let reported = ""; // the views that this page sent last
  let last = Promise.resolve();

  // Returns a function that returns the position of a point in this layer; undefined outside of its map.
  const places = () => {
    const layer = el.getBoundingClientRect();
    const frames = Object.fromEntries(SPACES.map((space) => [space, maps[space].get("canvas").getBoundingClientRect()]));
    return (space, index) => {
      const at = maps[space].getScreenPosition(index);
      const { width, height, left, top } = frames[space];
      if (!at || at[0] < 0 || at[1] < 0 || at[0] > width || at[1] > height) return undefined;
      return [at[0] + left - layer.left, at[1] + top - layer.top];
    };
  };

  const drawLines = (context, placeOf) => {
    const lines = model.get("lines");
    context.strokeStyle = model.get("highlight");
    context.lineWidth = lines.length <= 25 ? 1.5 : 0.75;
    context.globalAlpha = 0.7;
    context.beginPath();
    for (const [source, target] of lines) {
      const [from, to] = [placeOf("source", source), placeOf("target", target)];
      if (!from || !to) continue;
      context.moveTo(...from);
      context.lineTo(...to);
    }
    context.stroke();
    context.globalAlpha = 1;
  };

  const write = (context, placeOf, space, texts, size, raise) => {
    const style = getComputedStyle(el);
    context.font = `${size}px ${style.fontFamily}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineWidth = 3;
    context.strokeStyle = style.getPropertyValue("--tl-ground");
    context.fillStyle = style.getPropertyValue("--tl-ink");
    for (const [index, text] of texts) {
      const at = placeOf(space, index);
      if (!at) continue;
      const half = context.measureText(text).width / 2;
      const x = Math.min(Math.max(at[0], half), el.clientWidth - half);
      context.strokeText(text, x, at[1] - raise);
      context.fillText(text, x, at[1] - raise);
    }
  };

  const point = () => {
    const { space, index, text } = model.get("pointer");
    const at = space && places()(space, index);
    pointer.hidden = !at;
    if (!at) return;
    pointer.innerHTML = text;
    const left = Math.min(at[0] + 12, el.clientWidth - pointer.offsetWidth);
    const above = at[1] + 12 + pointer.offsetHeight > el.clientHeight;
    pointer.style.left = `${left}px`;
    pointer.style.top = `${above ? at[1] - 12 - pointer.offsetHeight : at[1] + 12}px`;
  };

  const draw = () => {
    if (gone || !maps || !SPACES.every((space) => maps[space].get("isPointsDrawn"))) return;
    canvas.width = el.clientWidth * devicePixelRatio;
    canvas.height = el.clientHeight * devicePixelRatio;
    const context = canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    const placeOf = places();
    drawLines(context, placeOf);
    for (const space of SPACES) {
      write(context, placeOf, space, model.get("signs")[space] ?? [], 15, 0);
      write(context, placeOf, space, model.get("names")[space] ?? [], 12, 13);
    }
    point();
  };

  // Applies the colours and positions that the kernel has changed since the maps were made.
  const repaint = (moved) => {
    last = last.catch(() => {}).then(() => Promise.all(SPACES.map((space) => {
      const [codes, places] = [model.get("codes")[space], model.get("places")[space]];
      if (gone || (!codes && !places)) return undefined;
      const points = maps[space].get("points");
      points.forEach((values, i) => {
        if (places) [values[0], values[1]] = [places.getFloat32(8 * i, true), places.getFloat32(8 * i + 4, true)];
        if (codes) values[2] = codes.getUint8(i);
      });
      return maps[space].draw(points, moved ? {} : { spatialIndex: maps[space].get("spatialIndex") });
    })));
  };

  // A view is the centre of the visible part and the distance of the camera; a map fills a canvas of any shape.
  const fit = () => {
    for (const space of SPACES) {
      const { ratio } = sizeOf(maps[space]);
      const [x, y, distance] = model.get("views")[space];
      if (ratio > 0) maps[space].set({ aspectRatio: ratio, cameraTarget: [x * ratio, y], cameraDistance: distance });
    }
  };

  const report = () => {
    if (gone) return;
    const views = {};
    for (const space of SPACES) {
      const [x, y] = maps[space].get("cameraTarget");
      views[space] = [x / maps[space].get("aspectRatio"), y, maps[space].get("cameraDistance")].map(round);
    }
    if (JSON.stringify(views) === JSON.stringify(model.get("views"))) return;
    reported = JSON.stringify(views);
    model.set("views", views);
    model.save_changes();
  };

  const shape = new ResizeObserver(fit);
  // The wheel scrolls the page in lasso mode, and zooms in pan mode.
  const wheel = (event) => {
    const map = SPACES.find((space) => maps?.[space].get("canvas") === event.target);
    if (map && maps[map].get("mouseMode") === "lasso") event.stopPropagation();
  };

  const begin = () => {
    if (gone) return;
    frame ??= el.closest(".tl-map-figure");
    const found = SPACES.map((space) => frame?.querySelector(`.tl-map-${space} canvas`));
    const apis = found.map((map) => map?.parentElement.parentElement.api);
    if (!apis.every((api) => api?.get("isPointsDrawn") && !api.get("isDrawing"))) {
      requestAnimationFrame(begin);
      return;
    }
    maps = Object.fromEntries(SPACES.map((space, i) => [space, apis[i]]));
    trim(window.jupyterScatter?.renderer);
    found.forEach((map, i) => {
      map.setAttribute("role", "img");
      map.setAttribute("aria-label", `Map of the ${SPACES[i]} tokens; tables below the maps hold what it shows`);
      shape.observe(map);
      apis[i].subscribe("drawing", draw);
      apis[i].subscribe("view", () => {
        clearTimeout(settling);
        settling = setTimeout(report, SETTLED_MS);
      });
    });
    frame.addEventListener("wheel", wheel, { capture: true });
    repaint(true);
    fit();
    el.dataset.ready = "true";
  };

  let frame;
  const listeners = {
    codes: () => maps && repaint(false), places: () => maps && repaint(true),
    views: () => {
      if (!maps || JSON.stringify(model.get("views")) === reported) return; // the user moves the map
      reported = "";
      fit();
    },
    lines: draw, signs: draw, names: draw, highlight: draw, pointer: () => maps && point(),
  };
  for (const [name, listen] of Object.entries(listeners)) model.on(`change:${name}`, listen);
  begin();
  return () => {
    gone = true;
    shape.disconnect();
    frame?.removeEventListener("wheel", wheel, { capture: true });
    for (const [name, listen] of Object.entries(listeners)) model.off(`change:${name}`, listen);
  };
}

export default { render };
