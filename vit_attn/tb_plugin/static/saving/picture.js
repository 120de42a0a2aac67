// @ts-check
/** The view as one picture: titles, figures, tiles of prefix tokens, colour bars, on demand all heads, and the notes. */

import { cssColour, format, isLight } from "../maps/colour.js";
import { h } from "../drawing/dom.js";
import { paintBar, paintImage, paintMatrix } from "../drawing/draw.js";
import { sheetBlocks } from "./picture_sheet.js";
import { viewBlocks } from "./picture_view.js";
import { predictionPhrase } from "../maps/predictions.js";
import { HELD } from "../parts/notes.js";
import { INTERPOLATED } from "../maps/smooth.js";
import { describe } from "../parts/stage.js";
import { placeName, tokenName } from "../maps/view.js";

/** @typedef {import("../page.js").Page} Page */
/** @typedef {import("../maps/colour.js").Scale} Scale */
/** @typedef {import("../maps/view.js").Maps} Maps */
/** @typedef {{context: CanvasRenderingContext2D, font: (size: string) => string, colour: string, muted: string, line: string}} Pen */
/** @typedef {{height: number, paint: (pen: Pen, y: number) => void}} Block a strip of the picture */
/** @typedef {{title: string, base: HTMLCanvasElement | null, marks: HTMLCanvasElement, aspect: number, missing: string, tiles: [string, string, string][], scale: Scale | null, axes: boolean}} Panel */

const [PAGE_EDGE, PANEL, SPACE, LINE, PIXELS] = [24, 420, 22, 21, 2];

/** @param {Page} page @returns {Promise<HTMLCanvasElement | null>} */
export async function drawPicture(page) {
  if (!page.here || !page.stage || !page.notes) return null;
  const style = getComputedStyle(document.body);
  const variable = (/** @type {string} */ name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const canvas = h("canvas");
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  /** @type {Pen} */
  const pen = { context, font: (size) => `${size} ${style.fontFamily}`, colour: style.color, muted: variable("--muted"), line: variable("--line") };
  const panels = panelsOf(page);
  const width = 2 * PAGE_EDGE + panels.length * (PANEL + SPACE) - SPACE;
  const blocks = [...titleBlocks(page, pen, width), panelBlock(pen, panels), ...(await viewBlocks(page, pen, width - 2 * PAGE_EDGE, PAGE_EDGE)), ...(page.state.withSheet ? sheetBlocks(page, width - 2 * PAGE_EDGE, PAGE_EDGE) : []), ...noteBlocks(page, pen, width)];
  const height = 2 * PAGE_EDGE + blocks.reduce((total, block) => total + block.height, 0);
  canvas.width = PIXELS * width;
  canvas.height = PIXELS * Math.ceil(height);
  context.scale(PIXELS, PIXELS);
  context.fillStyle = style.backgroundColor;
  context.fillRect(0, 0, width, height);
  let y = PAGE_EDGE;
  for (const block of blocks) {
    block.paint(pen, y);
    y += block.height;
  }
  return canvas;
}

/** @param {Pen} pen @param {string} words @param {number} x @param {number} y @param {string} [size] @param {string} [colour] */
export function write({ context, font, colour: usual }, words, x, y, size = "15px", colour = usual) {
  context.font = font(size);
  context.fillStyle = colour;
  context.fillText(words, x, y);
  return context.measureText(words).width;
}

/** Lines that fit. @param {Pen} pen @param {string} words @param {number} width @param {string} [size] */
function wrapped({ context, font }, words, width, size = "15px") {
  context.font = font(size);
  /** @type {string[]} */
  const lines = [];
  for (const word of words.split(" ")) {
    const longer = lines.length ? `${lines[lines.length - 1]} ${word}` : word;
    if (lines.length && context.measureText(longer).width <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

/** A block of text. @param {Pen} pen @param {string} words @param {number} width @param {string} [size] @param {string} [colour] @returns {Block} */
function textBlock(pen, words, width, size = "15px", colour = pen.colour) {
  const lines = wrapped(pen, words, width - 2 * PAGE_EDGE, size);
  const high = size.includes("20px") ? 28 : LINE;
  return { height: high * lines.length, paint: (_, y) => lines.forEach((line, i) => write(pen, line, PAGE_EDGE, y + high * i + 15, size, colour)) };
}

/** @param {Page} page @param {Pen} pen @param {number} width @returns {Block[]} */
function titleBlocks({ here, pinned, state }, pen, width) {
  if (!here) return [];
  const said = (/** @type {Maps} */ maps) => [placeName(maps), predictionPhrase(maps.about)].filter(Boolean).join(" · ");
  const way = state.direction === "to" && state.query !== "pool" ? "attended by" : "attends to";
  const titles = pinned ? [`A: ${said(pinned)}`, `B: ${said(here)}`] : [said(here)];
  return [...titles.map((title) => textBlock(pen, title, width, "600 20px")), textBlock(pen, `${describe(here, state)} · query: ${tokenName(here.index, state.query)}, ${way}`, width), { height: 12, paint: () => {} }];
}

/** @param {Page} page @param {Pen} pen @param {number} width @returns {Block[]} */
function noteBlocks({ notes }, pen, width) {
  const items = [...(notes?.list.children ?? [])].map((item) => item.textContent ?? "").filter((text) => !text.startsWith(HELD));
  return items.map((item) => textBlock(pen, item, width, "14px", pen.muted));
}

/** @param {Page} page @returns {Panel[]} */
function panelsOf({ stage, pictures, state, here }) {
  if (!stage || !here) return [];
  const figures = [stage.image, stage.a, stage.map, stage.change].filter(({ element, content }) => !element.hidden && content);
  const panels = figures.map((figure) => {
    const { maps, title, detail, shown, scale, missing = "" } = /** @type {import("../parts/figure.js").Content} */ (figure.content);
    const { grid, index } = maps;
    const map = shown && scale && { values: shown.values.subarray(grid.prefix), hidden: shown.hidden, scale, opacity: state.opacity, smooth: state.smooth };
    const base = detached();
    paintImage(base, grid, pictures.get(maps) ?? null, map, state.grid);
    const tiles = !shown || !scale ? [] : index.prefix.map((name, token) => tileOf(name, shown.values[token], shown.hidden.has(token), scale));
    const smooth = map && state.smooth ? `, ${INTERPOLATED}` : "";
    return { title: `${title}${detail ? `: ${detail}` : ""}${smooth}`, base: missing ? null : base, marks: figure.marks, aspect: grid.width / grid.height, missing, tiles, scale: missing ? null : scale, axes: false };
  });
  return stage.matrix.element.hidden ? panels : [...panels, matrixPanel(stage.matrix, here)];
}

/** @param {import("../parts/matrix.js").Matrix} matrix @param {Maps} here @returns {Panel} */
function matrixPanel({ values, scale, left, marks, missing }, here) {
  const base = detached();
  if (values && scale) paintMatrix(base, values, scale, left);
  return { title: `Matrix: ${here.tokens} × ${here.tokens} tokens`, base: values ? base : null, marks, aspect: 1, missing: values ? "" : missing.textContent ?? "", tiles: [], scale: values ? scale : null, axes: true };
}

/** A canvas in no page has the pixels that it is given. */
function detached() {
  return h("canvas", { width: PIXELS * PANEL });
}

/** Text, background and colour of a prefix token. @param {string} name @param {number} value @param {boolean} hidden @param {Scale} scale @returns {[string, string, string]} */
function tileOf(name, value, hidden, scale) {
  if (hidden) return [`${name} ✕ left out`, "#5a5a5a", "#fff"];
  return [`${name} ${format(value, scale.percent)}`, cssColour(scale, value), isLight(scale, value) ? "#000" : "#fff"];
}

/** All panels side by side. @param {Pen} pen @param {Panel[]} panels @returns {Block} */
function panelBlock(pen, panels) {
  const titles = panels.map(({ title }) => wrapped(pen, title, PANEL, "600 15px"));
  const top = Math.max(...titles.map((lines) => lines.length)) * LINE + 6;
  const tallest = Math.max(...panels.map(({ aspect }) => PANEL / aspect));
  return {
    height: top + tallest + 106,
    paint: (_, y) => panels.forEach((panel, i) => {
      const x = PAGE_EDGE + i * (PANEL + SPACE);
      titles[i].forEach((line, at) => write(pen, line, x, y + LINE * at + 14, "600 15px"));
      paintPanel(pen, panel, x, y + top);
    }),
  };
}

/** @param {Pen} pen @param {Panel} panel @param {number} x @param {number} y */
function paintPanel(pen, { base, marks, aspect, missing, tiles, scale, axes }, x, y) {
  const { context } = pen;
  const height = PANEL / aspect;
  if (missing) wrapped(pen, missing, PANEL).forEach((line, i) => write(pen, line, x, y + 40 + LINE * i));
  if (!base) return;
  context.imageSmoothingEnabled = false;
  context.drawImage(base, x, y, PANEL, height);
  context.imageSmoothingEnabled = true;
  context.drawImage(marks, x, y, PANEL, height);
  if (axes) write(pen, "rows: query ↓ · columns: key →", x, y + height + 20, "14px", pen.muted);
  let right = x;
  for (const [words, background, colour] of tiles.slice(0, 8)) {
    context.font = pen.font("14px");
    const wide = context.measureText(words).width + 16;
    if (right + wide > x + PANEL) break;
    context.fillStyle = background;
    context.fillRect(right, y + height + 6, wide, 22);
    write(pen, words, right + 8, y + height + 22, "14px", colour);
    right += wide + 6;
  }
  if (scale) paintScale(pen, scale, x, y + height + 40);
}

/** The colour bar, its numbers, and a tick at uniform attention. @param {Pen} pen @param {Scale} scale @param {number} x @param {number} y */
function paintScale(pen, scale, x, y) {
  const { context } = pen;
  const { uniform = 0 } = scale;
  const bar = h("canvas");
  paintBar(bar, scale);
  context.drawImage(bar, x, y, PANEL, 12);
  const numbers = [scale.low, (scale.low + scale.high) / 2, scale.high].map((value) => format(value, scale.percent));
  context.font = pen.font("14px");
  numbers.forEach((words, i) => write(pen, words, x + (i / 2) * (PANEL - context.measureText(words).width), y + 30, "14px", pen.muted));
  if (uniform <= 0 || uniform > scale.high) return;
  const at = x + (uniform / scale.high) * PANEL;
  context.fillStyle = pen.colour;
  context.fillRect(at - 1, y - 4, 2, 20);
  write(pen, `tick: uniform attention, 1/${Math.round(1 / uniform)} = ${format(uniform, true)}`, x, y + 50, "13px", pen.muted);
}
