// @ts-check
// Slices of the volumes within a page, in three planes. Voxels lie as text in the page: X fastest, differences to the
// voxel before, deflated, base64. Positions are voxels of the case's grid, whose axes point right, anterior, superior.

/** @typedef {{first: number, step: number, slices: number, flipped: boolean}} FileAxis */
/** @typedef {{shape: number[], spacing: number[], affine: number[][], ends: string[][], planes: string[],
 *   file: FileAxis[], picture: boolean, window: [number, number] | null, layers: string[], centre: number[],
 *   heat: {title: string, highest: number, unit: string}[], said: string[]}} Grid */
/** @typedef {{name: string, note: string, values: Record<string, (number | null)[]>, grid: Grid | null}} Case */
/** @typedef {{labels: string[], colours: string[], columns: {title: string, worst: string, words: string[]}[], structures: string[],
 *   cases: Case[], heat: number[]}} Data */
/** @typedef {{axis: number, across: number, up: number, figure: HTMLElement, caption: HTMLElement,
 *   canvas: HTMLCanvasElement, bar: HTMLInputElement}} Plane */

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
