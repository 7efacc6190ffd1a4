// @ts-check
// Slices of the volumes within a page, in three planes. Voxels lie as text in the page: X fastest, differences to the
// voxel before, deflated, base64. Positions are voxels of the case's grid, whose axes point right, anterior, superior.

/** @typedef {{first: number, step: number, slices: number, flipped: boolean}} FileAxis */
/** @typedef {{shape: number[], spacing: number[], affine: number[][], ends: string[][], planes: string[],
 *   file: FileAxis[], picture: boolean, window: [number, number] | null, layers: string[], centre: number[],
 *   heat: {title: string, highest: number, unit: string}[], said: string[]}} Grid */
/** @typedef {{name: string, note: string, values: Record<string, (number | null)[]>, grid: Grid | null}} Case */
/** @typedef {{labels: string[], colours: string[], columns: {title: string, worst: string}[], structures: string[],
 *   cases: Case[], heat: number[]}} Data */
/** @typedef {{axis: number, across: number, up: number, figure: HTMLElement, caption: HTMLElement,
 *   canvas: HTMLCanvasElement, bar: HTMLInputElement}} Plane */

(() => {
  "use strict";
  const IGNORE = 255, OPACITY = 0.45;
  const root = /** @type {HTMLElement} */ (document.getElementById("viewer"));
  /** @param {string} name @returns {any} */
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  /** @type {Data} */
  const data = JSON.parse(part("data").textContent);
  const rgb = data.colours.map((text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));
  const switches = /** @type {const} */ (["reference", "result"]);
  /** @type {{number: number, grid: Grid, at: number[], window: number[], zoom: number, tool: string, cross: boolean}} */
  const state = { number: -1, grid: /** @type {any} */ (null), at: [0, 0, 0], window: [0, 255], zoom: 1, tool: "point",
    cross: true };
  /** @type {Record<string, Uint8Array>} */
  let voxels = {};
  let asked = 0;

  // ---------------------------------------------------------------- a case: its text -> its voxels

  /** @param {string} id @returns {Promise<Uint8Array>} */
  async function unpacked(id) {
    const text = atob(/** @type {HTMLElement} */ (document.getElementById(id)).textContent ?? "");
    const packed = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    for (let i = 1; i < bytes.length; i++) bytes[i] += bytes[i - 1];
    return bytes;
  }

  /** Show a case; a later call wins over one that is still unpacking. @param {number} number @param {number} [label] */
  async function show(number, label = 0) {
    const { grid, name, note } = data.cases[number], turn = ++asked;
    if (!grid) return;
    if (number !== state.number) {
      const layers = await Promise.all(grid.layers.map((layer) => unpacked(`voxels-${number}-${layer}`)));
      if (turn !== asked) return;
      voxels = Object.fromEntries(grid.layers.map((layer, i) => [layer, layers[i]]));
      Object.assign(state, { number, grid, at: [...grid.centre], window: [0, 255], zoom: 1 });
      part("cases").value = String(number);
      for (const layer of switches) part(`${layer}-switch`).hidden = !voxels[layer];
      part("difference").hidden = !(voxels.reference && voxels.result);
      const chosen = part("heat").selectedIndex;
      part("heat").replaceChildren(new Option("off", "-1"), ...grid.heat.map((map, i) => new Option(map.title, String(i))));
      part("heat").selectedIndex = Math.min(Math.max(chosen, 0), grid.heat.length);
      part("heat-switch").hidden = !grid.heat.length;
      part("said").textContent = [note, ...grid.said].filter(Boolean).join(" ");
      for (const row of document.querySelectorAll("[data-row]"))
        row.classList.toggle("looked-at", row.getAttribute("data-row") === name);
      planes.forEach((plane) => {
        plane.figure.hidden = grid.picture && plane.axis !== 2;
        plane.bar.max = String(grid.shape[plane.axis] - 1);
        plane.bar.hidden = grid.shape[plane.axis] === 1;
      });
      fit();
    }
    if (label) goTo(fullest((i) => [voxels.reference, voxels.result].some((map) => map?.[i] === label)));
    draw();
    root.dataset.shown = name;
  }

  /** The voxel at which the three slices hold most of what is wanted; null where there is none.
   * @param {(index: number) => boolean} wanted @returns {number[] | null} */
  function fullest(wanted) {
    const [nx, ny, nz] = state.grid.shape, counts = state.grid.shape.map((n) => new Uint32Array(n));
    for (let z = 0, i = 0; z < nz; z++) for (let y = 0; y < ny; y++) for (let x = 0; x < nx; x++, i++)
      if (wanted(i)) { counts[0][x]++; counts[1][y]++; counts[2][z]++; }
    const best = counts.map((each) => each.indexOf(Math.max(...each)));
    return counts[2][best[2]] ? best : null;
  }

  /** @param {number[] | null} at */
  function goTo(at) {
    if (!at) return;
    state.at = at.map((value, axis) => Math.min(Math.max(value, 0), state.grid.shape[axis] - 1));
    draw();
  }

  /** @param {number} axis @param {number} by */
  const step = (axis, by) => goTo(state.at.map((value, i) => (i === axis ? value + by : value)));

  // ---------------------------------------------------------------- drawing

  /** @param {number} axis @param {number} index */
  function fileNumber(axis, index) {
    const { first, step: by, slices, flipped } = state.grid.file[axis];
    return Math.min(first + by * (flipped ? state.grid.shape[axis] - 1 - index : index), slices);
  }

  /** Sizes of the canvases: one scale for all planes, true in mm. */
  function fit() {
    const { grid } = state, seen = planes.filter((plane) => !plane.figure.hidden);
    /** @param {Plane} plane */
    const size = (plane) => [plane.across, plane.up].map((axis) => grid.shape[axis] * grid.spacing[axis]);
    const most = Math.max(240, 0.62 * innerHeight);
    const scale = Math.min(...seen.map((plane) => Math.min(plane.figure.clientWidth / size(plane)[0], most / size(plane)[1])));
    for (const plane of seen) {
      const [width, height] = size(plane).map((mm) => Math.max(8, Math.round(mm * scale)));
      Object.assign(plane.canvas.style, { width: `${width}px`, height: `${height}px` });
      Object.assign(plane.canvas, { width: Math.round(width * devicePixelRatio), height: Math.round(height * devicePixelRatio) });
    }
  }

  /** Where a plane's voxels lie on its canvas: column c and row r begin at left + c * wide and top + r * high.
   * @param {Plane} plane */
  function place({ across, up, canvas }) {
    const { grid, zoom, at } = state, lengths = [grid.shape[across], grid.shape[up]];
    const full = [canvas.width, canvas.height], sizes = lengths.map((n, i) => (full[i] / n) * zoom);
    const middle = [across, up].map((axis, i) => (column(axis, at[axis]) + 0.5) * sizes[i]);
    const [left, top] = middle.map((at, i) => Math.min(0, Math.max(full[i] - lengths[i] * sizes[i], full[i] / 2 - at)));
    return { left, top, wide: sizes[0], high: sizes[1], columns: lengths[0], rows: lengths[1] };
  }

  /** Column or row of a voxel, and voxel of a column or row: R, A and S come first; a picture is as it is.
   * @param {number} axis @param {number} index */
  const column = (axis, index) => (state.grid.picture ? index : state.grid.shape[axis] - 1 - index);

  function draw() {
    if (!state.grid) return;
    planes.filter((plane) => !plane.figure.hidden).forEach(drawPlane);
    tell();
  }

  /** @param {Plane} plane */
  function drawPlane(plane) {
    const { grid, at } = state, { axis, across, up, canvas } = plane;
    const brush = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const spot = place(plane), { columns, rows } = spot;
    const strides = [1, grid.shape[0], grid.shape[0] * grid.shape[1]];
    /** Index of the voxel in a column and a row. @param {number} c @param {number} r */
    const index = (c, r) => at[axis] * strides[axis] + column(across, c) * strides[across] + column(up, r) * strides[up];
    const pixels = new ImageData(columns, rows);
    for (let r = 0, p = 0; r < rows; r++) for (let c = 0; c < columns; c++, p += 4) paint(pixels.data, p, index(c, r));
    const slice = new OffscreenCanvas(columns, rows);
    /** @type {OffscreenCanvasRenderingContext2D} */ (slice.getContext("2d")).putImageData(pixels, 0, 0);
    brush.imageSmoothingEnabled = false;
    brush.fillRect(0, 0, canvas.width, canvas.height);
    brush.drawImage(slice, spot.left, spot.top, columns * spot.wide, rows * spot.high);
    for (const layer of switches)
      if (voxels[layer] && part(layer).value === "contour") contours(brush, spot, (c, r) => voxels[layer][index(c, r)], layer);
    if (state.cross) crossHair(brush, spot, column(across, at[across]), column(up, at[up]));
    if (!grid.picture) letters(brush, grid.ends[across], grid.ends[up]);
    plane.bar.value = String(at[axis]);
    plane.caption.textContent = `${grid.picture ? "picture" : grid.planes[axis]}` +
      (grid.shape[axis] > 1 ? `, slice ${fileNumber(axis, at[axis])} of ${grid.file[axis].slices}` : "");
    canvas.setAttribute("aria-label", plane.caption.textContent);
  }

  /** The colour of a voxel: grey, then fills, then the heat map. @param {Uint8ClampedArray} into @param {number} p
   * @param {number} i */
  function paint(into, p, i) {
    const [low, high] = state.window, image = voxels.image;
    into[p] = into[p + 1] = into[p + 2] = image ? ((image[i] - low) / Math.max(high - low, 1)) * 255 : 0;
    into[p + 3] = 255;
    for (const layer of switches) {
      const label = part(layer).value === "fill" ? voxels[layer]?.[i] : 0;
      if (label && label !== IGNORE) blend(into, p, rgb[(label - 1) % rgb.length], OPACITY);
    }
    const value = voxels[`heat${part("heat").value}`]?.[i];
    if (value) blend(into, p, data.heat.slice(3 * value, 3 * value + 3), Math.sqrt(value / 255));
  }

  /** @param {Uint8ClampedArray} into @param {number} p @param {number[]} colour @param {number} opacity */
  function blend(into, p, colour, opacity) {
    for (let k = 0; k < 3; k++) into[p + k] += (colour[k] - into[p + k]) * opacity;
  }

  /** Lines along the edges of every label's voxels, just within them: those of neighbours lie side by side.
   * @param {CanvasRenderingContext2D} brush @param {ReturnType<typeof place>} spot
   * @param {(c: number, r: number) => number} at @param {string} layer */
  function contours(brush, { left, top, wide, high, columns, rows }, at, layer) {
    const width = (layer === "reference" ? 2 : 1.4) * devicePixelRatio, inset = width / 2;
    /** @type {Map<number, Path2D>} */
    const paths = new Map();
    /** @param {number} c @param {number} r */
    const label = (c, r) => (c < 0 || r < 0 || c >= columns || r >= rows ? 0 : at(c, r) % IGNORE);
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
      const own = label(c, r);
      if (!own) continue;
      const path = paths.get(own) ?? new Path2D();
      paths.set(own, path);
      const x = [left + c * wide, left + (c + 1) * wide], y = [top + r * high, top + (r + 1) * high];
      for (const side of [0, 1]) {
        const shift = side ? -inset : inset, away = 2 * side - 1;
        if (label(c + away, r) !== own) { path.moveTo(x[side] + shift, y[0]); path.lineTo(x[side] + shift, y[1]); }
        if (label(c, r + away) !== own) { path.moveTo(x[0], y[side] + shift); path.lineTo(x[1], y[side] + shift); }
      }
    }
    brush.lineWidth = width;
    brush.setLineDash(layer === "reference" ? [] : [4 * devicePixelRatio, 3 * devicePixelRatio]);
    for (const [own, path] of paths) { brush.strokeStyle = data.colours[(own - 1) % data.colours.length]; brush.stroke(path); }
    brush.setLineDash([]);
  }

  /** @param {CanvasRenderingContext2D} brush @param {ReturnType<typeof place>} spot @param {number} c @param {number} r */
  function crossHair(brush, { left, top, wide, high }, c, r) {
    const x = left + (c + 0.5) * wide, y = top + (r + 0.5) * high, gap = Math.max(wide, high, 8 * devicePixelRatio);
    const { width, height } = brush.canvas;
    brush.fillStyle = "rgba(255, 255, 255, 0.6)";
    for (const [from, to] of [[0, x - gap], [x + gap, width]]) if (to > from) brush.fillRect(from, y, to - from, devicePixelRatio);
    for (const [from, to] of [[0, y - gap], [y + gap, height]]) if (to > from) brush.fillRect(x, from, devicePixelRatio, to - from);
    brush.fillStyle = "#000";
  }

  /** The patient's sides. @param {CanvasRenderingContext2D} brush @param {string[]} across @param {string[]} up */
  function letters(brush, across, up) {
    const { width, height } = brush.canvas, edge = 9 * devicePixelRatio;
    brush.font = `600 ${13 * devicePixelRatio}px system-ui, sans-serif`;
    brush.textBaseline = "middle";
    brush.lineWidth = 3 * devicePixelRatio;
    brush.strokeStyle = "#000";
    brush.fillStyle = "#fff";
    const written = /** @type {[string, number, number, CanvasTextAlign][]} */ ([[across[1], edge / 2, height / 2, "left"],
      [across[0], width - edge / 2, height / 2, "right"], [up[1], width / 2, edge, "center"], [up[0], width / 2, height - edge, "center"]]);
    for (const [text, x, y, align] of written) { brush.textAlign = align; brush.strokeText(text, x, y); brush.fillText(text, x, y); }
    brush.fillStyle = "#000";
  }

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
    const chosen = part("column").selectedIndex, structure = part("structure").value, { worst } = data.columns[chosen] ?? {};
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
      const option = new Option(`${own === null ? "" : `${own} · `}${name}${grid ? "" : " (not in this page)"}`, String(number));
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
})();
