// @ts-check
/** Drawing on canvases: a map over its image, marks, a matrix, a small map, a colour bar. */

import { colourAt } from "../maps/colour.js";
import { bilinear } from "../maps/smooth.js";

/** @typedef {import("../maps/colour.js").Scale} Scale */
/** @typedef {{rows: number, cols: number, prefix: number, height: number, width: number}} Grid */
/** @typedef {{patch: number, kind: "query" | "hover" | "answer" | "region", name?: string}} Mark region: of the ground truth, besides the answer */

/** Pixels of the screen a CSS pixel, two at most. */
function density() {
  return Math.min(window.devicePixelRatio || 1, 2);
}

/** Give a canvas the pixels of its place on the screen; one that is in no page keeps its width. @param {HTMLCanvasElement} canvas @param {number} aspect width over height */
export function fit(canvas, aspect) {
  const width = canvas.isConnected ? Math.max(1, Math.round(canvas.clientWidth * density())) : canvas.width;
  const height = Math.max(1, Math.round(width / aspect));
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.imageSmoothingEnabled = false;
  context.clearRect(0, 0, width, height);
  return context;
}

/** Values as a picture of one pixel a cell. @param {ArrayLike<number>} values @param {number} cols @param {Scale} scale @param {(i: number) => boolean} [hidden] */
function picture(values, cols, scale, hidden = () => false) {
  const image = new ImageData(cols, values.length / cols);
  for (let i = 0; i < values.length; i++) {
    const at = colourAt(scale, values[i]);
    if (at < 0 || hidden(i)) continue; // transparent
    image.data.set(scale.colours.subarray(at, at + 3), 4 * i);
    image.data[4 * i + 3] = 255;
  }
  return image;
}

/** Pixels a side in which values are interpolated; more are not seen and take long. */
const SMOOTH_PIXELS = 320;

const scratch = document.createElement("canvas");

/** @param {CanvasRenderingContext2D} context @param {ImageData} image */
export function stretch(context, image) {
  scratch.width = image.width;
  scratch.height = image.height;
  scratch.getContext("2d")?.putImageData(image, 0, 0);
  context.drawImage(scratch, 0, 0, context.canvas.width, context.canvas.height);
}

/**
 * The image, and over its greys a map: the hue belongs to the map alone.
 * @param {HTMLCanvasElement} canvas
 * @param {Grid} grid
 * @param {HTMLImageElement | null} image
 * @param {{values: Float32Array, hidden: Set<number>, scale: Scale, opacity: number, smooth?: boolean} | null} map values of patches
 * @param {boolean} lines
 */
export function paintImage(canvas, grid, image, map, lines) {
  const context = fit(canvas, grid.width / grid.height);
  const { width, height } = canvas;
  if (image) {
    context.filter = map ? "grayscale(1)" : "none";
    context.drawImage(image, 0, 0, width, height);
    context.filter = "none";
  }
  if (map) {
    context.globalAlpha = map.opacity;
    const hidden = (/** @type {number} */ patch) => map.hidden.has(patch + grid.prefix);
    if (map.smooth) stretchSmoothly(context, grid, map.values, map.scale, hidden);
    else stretch(context, picture(map.values, grid.cols, map.scale, hidden));
    context.globalAlpha = 1;
    for (const token of map.hidden) if (token >= grid.prefix) crossOut(context, cell(canvas, grid, token - grid.prefix));
  }
  if (lines) paintLines(context, grid);
}

/** Values, not colours, are interpolated. @param {CanvasRenderingContext2D} context @param {Grid} grid @param {Float32Array} values @param {Scale} scale @param {(patch: number) => boolean} hidden */
function stretchSmoothly(context, { rows, cols }, values, scale, hidden) {
  const { width, height } = context.canvas;
  const less = Math.min(1, SMOOTH_PIXELS / Math.max(width, height));
  const [fineRows, fineCols] = [Math.max(rows, Math.round(less * height)), Math.max(cols, Math.round(less * width))];
  context.imageSmoothingEnabled = true;
  stretch(context, picture(bilinear(values, rows, cols, fineRows, fineCols, hidden), fineCols, scale));
  context.imageSmoothingEnabled = false;
}

/** @param {CanvasRenderingContext2D} context @param {Grid} grid */
function paintLines(context, { rows, cols }) {
  const { width, height } = context.canvas;
  if (Math.min(width / cols, height / rows) < 6) return; // more line than picture
  context.beginPath();
  for (let col = 1; col < cols; col++) context.rect(Math.round((col * width) / cols), 0, 0, height);
  for (let row = 1; row < rows; row++) context.rect(0, Math.round((row * height) / rows), width, 0);
  context.strokeStyle = "rgb(255 255 255 / 0.16)";
  context.lineWidth = 1;
  context.stroke();
}

/** A patch's place in pixels of the canvas. @param {HTMLCanvasElement} canvas @param {Grid} grid @param {number} patch @returns {[number, number, number, number]} */
export function cell(canvas, { rows, cols }, patch) {
  const [width, height] = [canvas.width / cols, canvas.height / rows];
  return [(patch % cols) * width, Math.floor(patch / cols) * height, width, height];
}

/** @param {CanvasRenderingContext2D} context @param {[number, number, number, number]} place */
function crossOut(context, [x, y, width, height]) {
  context.fillStyle = "rgb(90 90 90)";
  context.fillRect(x, y, width, height);
  context.beginPath();
  context.moveTo(x + 0.3 * width, y + 0.3 * height);
  context.lineTo(x + 0.7 * width, y + 0.7 * height);
  context.moveTo(x + 0.7 * width, y + 0.3 * height);
  context.lineTo(x + 0.3 * width, y + 0.7 * height);
  context.strokeStyle = "rgb(255 255 255 / 0.8)";
  context.lineWidth = Math.max(1, width / 16);
  context.stroke();
}

/** Outlines of patches, seen on any colour. @param {HTMLCanvasElement} canvas @param {Grid} grid @param {Mark[]} marks @param {string} accent */
export function paintMarks(canvas, grid, marks, accent) {
  const context = fit(canvas, grid.width / grid.height);
  const unit = Math.max(density(), canvas.width / 360);
  for (const { patch, kind } of marks) {
    if (patch < 0) continue;
    const [x, y, width, height] = cell(canvas, grid, patch);
    const outline = (/** @type {string} */ colour, /** @type {number} */ line, /** @type {number} */ out) => {
      context.strokeStyle = colour;
      context.lineWidth = line * unit;
      context.strokeRect(x - out * unit, y - out * unit, width + 2 * out * unit, height + 2 * out * unit);
    };
    context.setLineDash([]);
    outline("rgb(0 0 0 / 0.85)", kind === "hover" ? 3 : 4.5, kind === "query" ? 1 : 0);
    context.setLineDash(kind === "region" ? [3 * unit, 2.5 * unit] : []);
    outline(kind === "query" ? accent : "#fff", kind === "hover" ? 1.4 : 2.4, kind === "query" ? 1 : 0);
  }
  for (const { patch, name } of marks) { // over all outlines, so that none hides a name
    if (patch < 0 || !name) continue;
    const [x, y, width, height] = cell(canvas, grid, patch);
    tag(context, name, x + width / 2, y < 18 * unit ? y + height + 2 * unit : y - 15 * unit, unit);
  }
}

/** @param {CanvasRenderingContext2D} context @param {string} text @param {number} centre @param {number} top @param {number} unit */
function tag(context, text, centre, top, unit) {
  context.setLineDash([]);
  context.font = `${12 * unit}px Roboto, system-ui, sans-serif`;
  const width = context.measureText(text).width + 6 * unit;
  const left = Math.min(Math.max(0, centre - width / 2), context.canvas.width - width);
  context.fillStyle = "rgb(0 0 0 / 0.8)";
  context.fillRect(left, top, width, 14.5 * unit);
  context.fillStyle = "#fff";
  context.textBaseline = "middle";
  context.fillText(text, left + 3 * unit, top + 7.7 * unit);
}

/** @param {HTMLCanvasElement} canvas @param {Float32Array} matrix @param {Scale} scale @param {Set<number>} hidden keys that are left out */
export function paintMatrix(canvas, matrix, scale, hidden) {
  const tokens = Math.sqrt(matrix.length);
  const context = fit(canvas, 1);
  stretch(context, picture(matrix, tokens, scale, (i) => hidden.has(i % tokens)));
}

/** The query's row and the key's column. @param {HTMLCanvasElement} canvas @param {number} tokens @param {number} prefix @param {number} query @param {number} key @param {string} accent */
export function paintCross(canvas, tokens, prefix, query, key, accent) {
  const context = fit(canvas, 1);
  const size = canvas.width / tokens;
  if (prefix) {
    context.fillStyle = "rgb(255 255 255 / 0.55)";
    context.fillRect(prefix * size - 0.5, 0, 1, canvas.height);
    context.fillRect(0, prefix * size - 0.5, canvas.width, 1);
  }
  const band = (/** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ w, /** @type {number} */ height, /** @type {string} */ colour) => {
    context.lineWidth = 3;
    context.strokeStyle = "rgb(0 0 0 / 0.7)";
    context.strokeRect(x, y, w, height);
    context.lineWidth = 1.5;
    context.strokeStyle = colour;
    context.strokeRect(x, y, w, height);
  };
  if (query >= 0) band(0.5, query * size - 2, canvas.width - 1, size + 4, accent); // around the row, whose colours stay
  if (key >= 0) band(key * size - 2, 0.5, size + 4, canvas.height - 1, "#fff");
}

/** @param {HTMLCanvasElement} canvas @param {Float32Array} values @param {Grid} grid @param {Scale} scale */
export function paintSmall(canvas, values, grid, scale) {
  if (canvas.width !== grid.cols || canvas.height !== grid.rows) {
    canvas.width = grid.cols;
    canvas.height = grid.rows;
    canvas.style.aspectRatio = `${grid.width} / ${grid.height}`;
  }
  canvas.getContext("2d")?.putImageData(picture(values, grid.cols, scale), 0, 0);
}

/** @param {HTMLCanvasElement} canvas @param {Scale} scale */
export function paintBar(canvas, scale) {
  canvas.width = 256;
  canvas.height = 1;
  const values = Float32Array.from({ length: 256 }, (_, i) => scale.low + (i / 255) * (scale.high - scale.low));
  canvas.getContext("2d")?.putImageData(picture(values, 256, scale), 0, 0);
}
