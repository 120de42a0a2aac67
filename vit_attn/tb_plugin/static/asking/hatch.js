// @ts-check
/** What is cut, drawn over a picture of patches: hatched patches, and arrows for edges. */

import { cell } from "../drawing/draw.js";

/** @typedef {import("./cuts.js").Cut} Cut */
/** @typedef {import("../drawing/draw.js").Grid} Grid */

/** @param {HTMLCanvasElement} canvas @param {Grid} grid @param {Cut[]} cuts */
export function drawCuts(canvas, grid, cuts) {
  const context = canvas.getContext("2d");
  if (!context) return;
  const unit = Math.max(1, canvas.width / 360);
  context.save();
  for (const cut of cuts) {
    if (cut.kind === "patch" && cut.token >= grid.prefix) hatch(context, cell(canvas, grid, cut.token - grid.prefix), unit);
    if (cut.kind === "edge" && cut.key >= grid.prefix) drawEdge(context, canvas, grid, cut, unit);
  }
  context.restore();
}

/** @param {CanvasRenderingContext2D} context @param {[number, number, number, number]} place @param {number} unit */
function hatch(context, [x, y, width, height], unit) {
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  context.fillStyle = "rgb(0 0 0 / 0.62)";
  context.fillRect(x, y, width, height);
  context.beginPath();
  const gap = Math.max(4 * unit, Math.min(width, height) / 4);
  for (let at = -height; at < width; at += gap) {
    context.moveTo(x + at, y + height);
    context.lineTo(x + at + height, y);
  }
  context.strokeStyle = "#fff";
  context.lineWidth = Math.max(1, 1.3 * unit);
  context.stroke();
  context.restore();
}

/** @param {CanvasRenderingContext2D} context @param {HTMLCanvasElement} canvas @param {Grid} grid @param {import("./cuts.js").EdgeCut} cut @param {number} unit */
function drawEdge(context, canvas, grid, { query, key }, unit) {
  const [x, y, width, height] = cell(canvas, grid, key - grid.prefix);
  const to = [x + width / 2, y + height / 2];
  const radius = Math.min(width, height) / 3;
  const from = typeof query === "number" && query >= grid.prefix ? cell(canvas, grid, query - grid.prefix) : null;
  for (const [colour, line] of /** @type {[string, number][]} */ ([["rgb(0 0 0 / 0.85)", 4.5], ["#fff", 1.8]])) {
    context.strokeStyle = colour;
    context.lineWidth = line * unit;
    context.setLineDash([]);
    context.beginPath(); // a crossed circle on the key that is not seen any more
    context.arc(to[0], to[1], radius, 0, 2 * Math.PI);
    context.moveTo(to[0] - 0.7 * radius, to[1] + 0.7 * radius);
    context.lineTo(to[0] + 0.7 * radius, to[1] - 0.7 * radius);
    context.stroke();
    if (!from || query === key) continue;
    const [fromX, fromY] = [from[0] + from[2] / 2, from[1] + from[3] / 2];
    const length = Math.hypot(to[0] - fromX, to[1] - fromY);
    context.setLineDash([5 * unit, 4 * unit]);
    context.beginPath();
    context.moveTo(fromX, fromY);
    context.lineTo(to[0] - (radius * (to[0] - fromX)) / length, to[1] - (radius * (to[1] - fromY)) / length);
    context.stroke();
  }
}
