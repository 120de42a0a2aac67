// @ts-check
/** Places of the heads' small maps: layers are rows and heads columns, in as many blocks side by side as fit. No DOM in here. */

/** @typedef {{text: string, area: string}} Label */

/** Narrowest small map in pixels before there is a further block of layers; two maps where two sides are compared. */
const [CELL, PAIR] = [104, 160];
/** Gap between cells, and width of a layer's heading. */
const [BETWEEN, HEADING] = [6, 66];
/** A cell gets no wider than this many pixels. */
const WIDEST = 208;

/**
 * @param {number[]} heads of each layer
 * @param {number} width in pixels that there are
 * @param {boolean} two whether each cell has two maps
 * @param {number} [opened] layer below which an enlarged map lies
 */
export function arrangement(heads, width, two, opened) {
  const most = Math.max(...heads);
  const fit = Math.floor(width / (HEADING + most * ((two ? PAIR : CELL) + BETWEEN)));
  const perBlock = Math.ceil(heads.length / Math.max(1, Math.min(heads.length, fit)));
  const blocks = Math.ceil(heads.length / perBlock);
  const below = opened === undefined ? Infinity : opened % perBlock;
  const row = (/** @type {number} */ layer) => 2 + (layer % perBlock) + Number(layer % perBlock > below);
  const first = (/** @type {number} */ block) => 1 + block * (most + 1);
  const block = (/** @type {number} */ layer) => Math.floor(layer / perBlock);
  const each = Array.from({ length: blocks }, (_, i) => i);
  return {
    columns: each.map(() => `${HEADING - BETWEEN}px repeat(${most}, minmax(44px, 1fr))`).join(" "),
    width: blocks * (HEADING + most * ((two ? 2 : 1) * WIDEST + BETWEEN)),
    heads: each.flatMap((i) => Array.from({ length: most }, (_, head) => ({ text: `head ${head + 1}`, area: `1 / ${first(i) + head + 1}` }))),
    layers: heads.map((_, layer) => ({ text: `layer ${layer + 1}`, area: `${row(layer)} / ${first(block(layer))}` })),
    cell: (/** @type {number} */ layer, /** @type {number} */ head) => `${row(layer)} / ${first(block(layer)) + head + 1}`,
    enlarged: opened === undefined ? "" : String(3 + below),
  };
}

/**
 * Where an arrow key leads from a cell: to the next head or layer, or where cells wrap to the next in order or row; -1 for other keys.
 * @param {{layer: number, head: number}[]} order
 * @param {number} at
 * @param {string} key
 * @param {number} perRow 0 where rows are layers
 */
export function neighbour(order, at, key, perRow) {
  const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[key];
  if (!move || !order.length) return -1;
  if (perRow) return Math.min(order.length - 1, Math.max(0, at + move[0] * perRow + move[1]));
  if (move[1] || at < 0) return Math.min(order.length - 1, Math.max(0, at + move[1]));
  const { layer, head } = order[at];
  const next = order.findIndex((cell) => cell.layer === layer + move[0] && cell.head === head);
  return next < 0 ? at : next;
}
