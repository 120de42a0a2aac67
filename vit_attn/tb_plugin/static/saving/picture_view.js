// @ts-check
/** The open one of the further views, for the saved picture. */

import { loadImage } from "../data/loading.js";

/** @typedef {import("./picture.js").Block} Block */
/** @typedef {import("./picture.js").Pen} Pen */
/** @typedef {{image: HTMLImageElement, title: string, size: [number, number]}} Drawing */

const [VIEW_MAP, VIEW_CELL, VIEW_GAP, TEXT_LINE] = [420, 150, 12, 21];
/** What a drawing takes from the page's style. */
const STYLED = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "font-size", "font-family"];

/** @param {import("../page.js").Page} page @param {Pen} pen @param {number} width @param {number} left @returns {Promise<Block[]>} */
export async function viewBlocks({ research, state }, pen, width, left) {
  if (!research?.title || !state.view) return [];
  const { element } = research.parts[state.view];
  const text = (/** @type {string} */ selector) => [...element.querySelectorAll(selector)].map((each) => each.textContent ?? "").join(" ");
  const words = text(".says, .sum").replace(/ ?(Click|Point at)\b[^.]*\.?/g, ""); // what to do is of the page
  const drawings = await Promise.all([...element.querySelectorAll("svg")].map(pictureOfDrawing));
  const heading = { height: 34, paint: (/** @type {Pen} */ _, /** @type {number} */ y) => put(pen, research.title, left, y + 26, "600 15px", pen.colour) };
  const blocks = [heading, paragraph(pen, words, width, left)];
  const map = element.querySelector("canvas.base");
  if (map) blocks.push(mapBlock(/** @type {HTMLElement} */ (map.parentElement), [...element.querySelectorAll(".hues button")], left));
  if (state.view === "images") blocks.push(cellsBlock([...element.querySelectorAll(".image-cell")], width, left));
  return [...blocks, drawingsBlock(drawings, width, left)];
}

/** @param {Pen} pen @param {string} words @param {number} x @param {number} y @param {string} size @param {string} colour */
function put({ context, font }, words, x, y, size, colour) {
  context.font = font(size);
  context.fillStyle = colour;
  context.fillText(words, x, y);
}

/** @param {Pen} pen @param {string} words @param {number} width @param {number} left @returns {Block} */
function paragraph(pen, words, width, left) {
  pen.context.font = pen.font("14px");
  /** @type {string[]} */
  const lines = [];
  for (const word of words.split(" ")) {
    const longer = lines.length ? `${lines[lines.length - 1]} ${word}` : word;
    if (lines.length && pen.context.measureText(longer).width <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return { height: TEXT_LINE * lines.length + 8, paint: (_, y) => lines.forEach((line, i) => put(pen, line, left, y + TEXT_LINE * i + 15, "14px", pen.muted)) };
}

/** A map with its marks, and a legend beside it. @param {HTMLElement} stack @param {Element[]} legend @param {number} left @returns {Block} */
function mapBlock(stack, legend, left) {
  const [base, marks] = /** @type {NodeListOf<HTMLCanvasElement>} */ (stack.querySelectorAll("canvas"));
  const height = (VIEW_MAP * base.height) / base.width;
  const shown = legend.filter((button) => button.getAttribute("aria-pressed") === "true");
  return {
    height: height + VIEW_GAP,
    paint: (pen, y) => {
      pen.context.imageSmoothingEnabled = false;
      for (const layer of [base, marks]) pen.context.drawImage(layer, left, y, VIEW_MAP, height);
      shown.forEach((button, i) => {
        pen.context.fillStyle = /** @type {HTMLElement} */ (button.firstElementChild).style.background;
        pen.context.fillRect(left + VIEW_MAP + 22, y + 26 * i, 18, 18);
        put(pen, button.textContent ?? "", left + VIEW_MAP + 50, y + 26 * i + 14, "15px", pen.colour);
      });
    },
  };
}

/** Images of a grid, each with its two lines. @param {Element[]} cells @param {number} width @param {number} left @returns {Block} */
function cellsBlock(cells, width, left) {
  const columns = Math.max(1, Math.floor((width + VIEW_GAP) / (VIEW_CELL + VIEW_GAP)));
  const heights = cells.map((each) => { const { height, width: wide } = /** @type {HTMLCanvasElement} */ (each.firstElementChild); return (VIEW_CELL * height) / wide; });
  const tall = Math.max(0, ...heights) + 2 * TEXT_LINE + VIEW_GAP;
  return {
    height: tall * Math.ceil(cells.length / columns) + VIEW_GAP,
    paint: (pen, y) => cells.forEach((each, i) => {
      const [canvas, ...lines] = each.children;
      const [x, top] = [left + (i % columns) * (VIEW_CELL + VIEW_GAP), y + Math.floor(i / columns) * tall];
      pen.context.imageSmoothingEnabled = false;
      pen.context.drawImage(/** @type {HTMLCanvasElement} */ (canvas), x, top, VIEW_CELL, heights[i]);
      lines.forEach((line, at) => put(pen, line.textContent ?? "", x, top + heights[i] + TEXT_LINE * (at + 1) - 5, "13px", pen.colour));
    }),
  };
}

/** Drawings side by side, as many as there is room for. @param {Drawing[]} drawings @param {number} width @param {number} left @returns {Block} */
function drawingsBlock(drawings, width, left) {
  /** @type {[number, number][]} */
  const places = [];
  let [x, y, tall] = [0, 0, 0];
  for (const { size } of drawings) {
    if (x && x + size[0] > width) [x, y, tall] = [0, y + tall, 0];
    places.push([left + x, y]);
    x += size[0] + 2 * VIEW_GAP;
    tall = Math.max(tall, size[1] + TEXT_LINE + VIEW_GAP);
  }
  return {
    height: y + tall,
    paint: (pen, top) => drawings.forEach(({ image, title, size }, i) => {
      put(pen, title, places[i][0], top + places[i][1] + 15, "600 14px", pen.colour);
      pen.context.drawImage(image, places[i][0], top + places[i][1] + TEXT_LINE, ...size);
    }),
  };
}

/** A drawing with its style, as an image. @param {SVGSVGElement} drawing @returns {Promise<Drawing>} */
async function pictureOfDrawing(drawing) {
  const copy = /** @type {SVGSVGElement} */ (drawing.cloneNode(true));
  const { width, height } = drawing.viewBox.baseVal;
  const copies = copy.querySelectorAll("*");
  drawing.querySelectorAll("*").forEach((each, i) => {
    const style = getComputedStyle(each);
    for (const name of STYLED) copies[i].setAttribute(name, style.getPropertyValue(name));
  });
  copy.setAttribute("width", String(2 * width));
  copy.setAttribute("height", String(2 * height));
  const text = new XMLSerializer().serializeToString(copy);
  const image = await loadImage(`data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`);
  return { image, title: drawing.closest("figure")?.querySelector("figcaption")?.textContent ?? "", size: [width, height] };
}
