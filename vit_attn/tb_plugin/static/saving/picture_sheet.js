// @ts-check
/** All heads of all layers for the saved picture, those of A and B in a comparison. */

import { mapScale } from "../maps/colour.js";
import { h } from "../drawing/dom.js";
import { paintSmall } from "../drawing/draw.js";
import { tokenName } from "../maps/view.js";

/** @typedef {import("./picture.js").Block} Block */
/** @typedef {import("./picture.js").Pen} Pen */
/** @typedef {import("../maps/view.js").Maps} Maps */
/** @typedef {import("../data/state.js").State} State */

const [MARGIN_LEFT, CELL_GAP, MOST_CELL, SHEET_GAP] = [64, 6, 104, 30];

/** @typedef {{layer: number, head: number, values: Float32Array, high: number}} SmallMap high: where its scale ends, before the least that a scale reaches */

/** @param {import("../page.js").Page} page @param {number} width @param {number} left @returns {Block[]} */
export function sheetBlocks({ here, pinned, state, stage }, width, left) {
  if (!here) return [];
  const sides = pinned ? [{ name: "A: ", maps: pinned }, { name: "B: ", maps: here }] : [{ name: "", maps: here }];
  const wide = (width - (sides.length - 1) * SHEET_GAP) / sides.length;
  const shown = sides.flatMap(({ name, maps }, i) => {
    const query = maps === here ? state.query : stage?.queryIn(maps) ?? "pool";
    return query !== "pool" && query >= maps.tokens ? [] : [{ name, maps, state: { ...state, query }, left: left + i * (wide + SHEET_GAP), cells: cellsOf(maps, { ...state, query }) }];
  });
  scaleTogether(pinned?.gridName === here.gridName ? [shown.flatMap(({ cells }) => cells)] : shown.map(({ cells }) => cells), state.common);
  const sheets = shown.map((side) => sheetBlock(side.name, side.maps, side.state, side.cells, wide, side.left));
  return [{ height: Math.max(0, ...sheets.map(({ height }) => height)), paint: (pen, y) => sheets.forEach((sheet) => sheet.paint(pen, y)) }];
}

/** @param {Maps} maps @param {State} state @returns {SmallMap[]} */
function cellsOf(maps, state) {
  return maps.index.heads.flatMap((count, layer) => (maps.layers[layer] ? [...Array(count).keys()].map((head) => {
    const values = maps.small(state, layer, head);
    return { layer, head, values, high: values.reduce((a, b) => (b > a ? b : a), 0) };
  }) : []));
}

/** Give the maps of a group one scale: those of one head in A and B, as on the page, or all of them. @param {SmallMap[][]} groups @param {boolean} common */
function scaleTogether(groups, common) {
  for (const cells of groups) {
    const name = (/** @type {SmallMap} */ { layer, head }) => (common ? "all" : `${layer} ${head}`);
    /** @type {Map<string, number>} */
    const most = new Map();
    for (const cell of cells) most.set(name(cell), Math.max(cell.high, most.get(name(cell)) ?? 0));
    for (const cell of cells) cell.high = most.get(name(cell)) ?? 0;
  }
}

/** @param {string} name @param {Maps} maps @param {State} state @param {SmallMap[]} cells @param {number} width @param {number} left @returns {Block} */
function sheetBlock(name, maps, state, cells, width, left) {
  const { index, grid } = maps;
  const heads = Math.max(...index.heads);
  const cell = Math.min(MOST_CELL, (width - MARGIN_LEFT) / heads - CELL_GAP);
  const tall = (cell * grid.height) / grid.width + CELL_GAP;
  const way = state.direction === "to" && state.query !== "pool" ? "attended by" : "attends to";
  const title = `${name}all heads, raw attention: ${tokenName(index, state.query)} ${way}; ${state.common ? "one scale for all" : "each head on its own scale"}`;
  return { height: 60 + index.heads.length * tall + 12, paint: (pen, y) => paintCells(pen, { cells, title, cell, tall, heads, maps }, left, y) };
}

/** @param {Pen} pen @param {{cells: SmallMap[], title: string, cell: number, tall: number, heads: number, maps: Maps}} sheet @param {number} left @param {number} y */
function paintCells({ context, font, colour, muted }, { cells, title, cell, tall, heads, maps }, left, y) {
  const put = (/** @type {string} */ words, /** @type {number} */ x, /** @type {number} */ at, /** @type {string} */ size, /** @type {string} */ ink) => {
    context.font = font(size);
    context.fillStyle = ink;
    context.fillText(words, x, at);
  };
  put(title, left, y + 16, "600 15px", colour);
  const every = Math.ceil(46 / (cell + CELL_GAP)); // room for a heading
  for (let head = 0; head < heads; head += every) put(`head ${head + 1}`, left + MARGIN_LEFT + head * (cell + CELL_GAP), y + 40, "13px", muted);
  maps.index.heads.forEach((_, layer) => put(`layer ${layer + 1}`, left, y + 48 + (layer + 0.5) * tall, "13px", muted));
  const small = h("canvas");
  context.imageSmoothingEnabled = false;
  for (const { layer, head, values, high } of cells) {
    paintSmall(small, values, maps.grid, mapScale(high, true, maps.tokens));
    context.drawImage(small, left + MARGIN_LEFT + head * (cell + CELL_GAP), y + 48 + layer * tall, cell, tall - CELL_GAP);
  }
}
