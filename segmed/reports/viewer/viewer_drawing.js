// @ts-check
// A case on three canvases: its voxels in their colours, contours, cross-hair and the patient's sides.

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
