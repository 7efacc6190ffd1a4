// @ts-check
// What a reader reads and does: legend and read-out, the list of cases, mouse, touch and keys; it starts all.

/** Legend, and what is at the cross-hair. */
function tell() {
  const { grid, at, window: [low, high] } = state, [x, y, z] = at, i = x + grid.shape[0] * (y + grid.shape[1] * z);
  /** @param {number} value */
  const figure = (value) => String(Number(value.toPrecision(4)));
  /** @param {number} label */
  const name = (label) => (label === IGNORE ? "ignored" : label ? data.labels[label - 1] ?? `label ${label}` : "–");
  const mm = grid.affine.map((row) => row[0] * x + row[1] * y + row[2] * z + row[3]);
  const sides = mm.map((value, axis) => `${"LPI RAS"[axis + (value < 0 ? 0 : 4)]} ${Math.abs(value).toFixed(1)}`);
  const said = grid.picture ? [`column ${x + 1}, row ${y + 1}`] : [`${sides.join(", ")} mm`];
  if (grid.window) {
    const [from, to] = grid.window, real = (/** @type {number} */ value) => from + (value / 255) * (to - from);
    said.push(`intensity ${figure(real(voxels.image[i]))}`, `window ${figure(real(low))} to ${figure(real(high))}`);
  }
  for (const layer of switches) if (voxels[layer]) said.push(`${layer}: ${name(voxels[layer][i])}`);
  const map = grid.heat[part("heat").value];
  if (map) said.push(`${map.title}: ${figure((voxels[`heat${part("heat").value}`][i] / 255) * map.highest)} ${map.unit}`);
  part("readout").textContent = said.join(" · ");
  const legend = data.labels.map((text, n) => swatch(text, data.colours[n % data.colours.length], ""));
  if (map) {
    const stops = [0, 64, 128, 192, 255].map((n) => `rgb(${data.heat.slice(3 * n, 3 * n + 3)})`);
    legend.push(swatch(`${map.title}: 0 to ${figure(map.highest)} ${map.unit}`, `linear-gradient(90deg, ${stops})`, "scale"));
  }
  part("legend").replaceChildren(...legend);
  root.dataset.at = at.join(",");
}

/** @param {string} text @param {string} background @param {string} kind */
function swatch(text, background, kind) {
  const whole = document.createElement("span"), patch = document.createElement("i");
  patch.className = kind;
  patch.style.background = background;
  whole.append(patch, text);
  return whole;
}

// ---------------------------------------------------------------- the list

/** Cases in their order, by the chosen figure: the worst first, those without one last. */
function list() {
  const chosen = part("column").selectedIndex, structure = part("structure").value, { worst, words } = data.columns[chosen] ?? {};
  /** @param {number} number */
  const value = (number) => data.cases[number].values[structure]?.[chosen] ?? null;
  /** @param {number} number */
  const key = (number) => {
    const own = value(number);
    return own === null ? Infinity : worst === "low" ? own : worst === "far" ? -Math.abs(own) : -own;
  };
  const order = data.cases.map((_, number) => number);
  if (worst) order.sort((a, b) => (key(a) === key(b) ? a - b : key(a) < key(b) ? -1 : 1));
  part("cases").replaceChildren(...order.map((number) => {
    const { name, grid } = data.cases[number], own = value(number);
    const shown = own === null ? "" : `${words?.[Math.floor(own)] ?? own} · `;
    const option = new Option(`${shown}${name}${grid ? "" : " (not in this page)"}`, String(number));
    option.disabled = !grid;
    return option;
  }));
  part("cases").value = String(state.number);
  return order.filter((number) => data.cases[number].grid);
}

/** @param {number} by */
function next(by) {
  const order = list(), place = order.indexOf(state.number) + by;
  if (order[place] !== undefined) show(order[place]);
}

// ---------------------------------------------------------------- hands

/** @param {Plane} plane @param {PointerEvent} event */
function point(plane, event) {
  const box = plane.canvas.getBoundingClientRect(), spot = place(plane);
  const c = Math.floor((((event.clientX - box.left) / box.width) * plane.canvas.width - spot.left) / spot.wide);
  const r = Math.floor((((event.clientY - box.top) / box.height) * plane.canvas.height - spot.top) / spot.high);
  const at = [...state.at];
  at[plane.across] = column(plane.across, Math.min(Math.max(c, 0), spot.columns - 1));
  at[plane.up] = column(plane.up, Math.min(Math.max(r, 0), spot.rows - 1));
  goTo(at);
}

/** Window and level: across changes the width, up and down the middle. @param {number} dx @param {number} dy */
function changeWindow(dx, dy) {
  const [low, high] = state.window, width = Math.min(Math.max((high - low) * Math.exp(dx / 150), 2), 1020);
  const middle = Math.min(Math.max((low + high) / 2 + (dy / 200) * width, -128), 383);
  state.window = [middle - width / 2, middle + width / 2];
  draw();
}

/** @param {number} factor */
function zoom(factor) {
  state.zoom = Math.min(Math.max(state.zoom * factor, 1), 16);
  draw();
}

function reset() {
  Object.assign(state, { window: [0, 255], zoom: 1 });
  draw();
}

const toDifference = () => { if (voxels.reference && voxels.result)
  goTo(fullest((i) => voxels.reference[i] !== IGNORE && voxels.reference[i] !== voxels.result[i])); };

/** @param {HTMLSelectElement} select */
function turn(select) {
  select.selectedIndex = (select.selectedIndex + 1) % select.length;
  draw();
}

/** @param {Plane} plane */
function listen(plane) {
  const { canvas, axis, bar } = plane;
  let drag = "", x = 0, y = 0, rolled = 0;
  canvas.addEventListener("pointerdown", (event) => {
    drag = event.button === 2 || event.shiftKey ? "window" : state.tool;
    [x, y] = [event.clientX, event.clientY];
    canvas.setPointerCapture(event.pointerId);
    if (drag === "point") point(plane, event);
  });
  canvas.addEventListener("pointermove", (event) => {
    const [dx, dy] = [event.clientX - x, event.clientY - y];
    if (drag === "point") point(plane, event);
    if (drag === "window") changeWindow(dx, dy);
    if (drag === "slices" && Math.abs(dy) < 6) return;
    if (drag === "slices") step(axis, -Math.sign(dy));
    [x, y] = [event.clientX, event.clientY];
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { drag = ""; });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    rolled += event.deltaY * (event.deltaMode ? 50 : 1);
    if (Math.abs(rolled) < 50) return;
    event.ctrlKey ? zoom(rolled < 0 ? 1.25 : 0.8) : step(axis, rolled < 0 ? 1 : -1);
    rolled = 0;
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -1e6, End: 1e6 }[event.key];
    if (by) { event.preventDefault(); step(axis, by); }
  });
  bar.addEventListener("input", () => step(axis, Number(bar.value) - state.at[axis]));
}

/** @type {Record<string, () => void>} */
const keys = { n: () => next(1), p: () => next(-1), r: () => turn(part("reference")), s: () => turn(part("result")),
  h: () => turn(part("heat")), d: toDifference, w: reset, "+": () => zoom(1.25), "-": () => zoom(0.8),
  x: () => { state.cross = !state.cross; draw(); } };

/** @type {Plane[]} */
const planes = [[2, 0, 1], [1, 0, 2], [0, 1, 2]].map(([axis, across, up]) => {
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  const canvas = document.createElement("canvas"), bar = document.createElement("input");
  figure.className = "plane";
  Object.assign(canvas, { tabIndex: 0, role: "img" });
  Object.assign(bar, { type: "range", min: "0", ariaLabel: "slice" });
  figure.append(caption, canvas, bar);
  part("planes").append(figure);
  return { axis, across, up, figure, caption, canvas, bar };
});

function start() {
  planes.forEach(listen);
  part("column").replaceChildren(...data.columns.map((column, i) => new Option(column.title, String(i))));
  part("structure").replaceChildren(...data.structures.map((name) => new Option(name, name)));
  part("sorting").hidden = !data.columns.length || data.cases.length === 1;
  part("cases").hidden = data.cases.length === 1;
  for (const [tool, text] of [["point", "cross-hair"], ["window", "window"], ["slices", "slices"]]) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: text, role: "radio", ariaChecked: String(tool === state.tool) });
    button.addEventListener("click", () => {
      root.dataset.tool = state.tool = tool;
      for (const each of part("tools").children) each.ariaChecked = String(each === button);
    });
    part("tools").append(button);
  }
  for (const name of ["column", "structure"]) part(name).addEventListener("change", list);
  for (const name of ["reference", "result", "heat"]) part(name).addEventListener("change", draw);
  part("cases").addEventListener("change", () => show(Number(part("cases").value)));
  part("difference").addEventListener("click", toDifference);
  part("reset").addEventListener("click", reset);
  root.addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLSelectElement;
    if (!typing && !event.ctrlKey && !event.metaKey && !event.altKey) keys[event.key]?.();
  });
  document.addEventListener("click", (event) => {
    const link = /** @type {Element} */ (event.target).closest("[data-case]");
    const number = data.cases.findIndex((each) => each.name === link?.getAttribute("data-case") && each.grid);
    if (number >= 0) show(number, data.labels.indexOf(link?.getAttribute("data-label") ?? "") + 1);
  });
  addEventListener("resize", () => { if (state.grid) { fit(); draw(); } });
  const [first] = list();
  if (first !== undefined) show(first).catch((error) => { part("said").textContent = `The voxels can't be read: ${error}`; });
}

start();
