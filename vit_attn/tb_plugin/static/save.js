// @ts-check
/** The current view as one PNG: the figures, their colour bars, and the notes. */

import { h } from "./dom.js";
import { describe } from "./stage.js";
import { imageNumber, placeName, tokenName } from "./view.js";

const [MARGIN, WIDTH, GAP] = [24, 420, 20];

/** @param {import("./page.js").Page} page */
export function savePicture(page) {
  const canvas = drawPicture(page);
  canvas?.toBlob((blob) => {
    if (!blob) return;
    const { run, step } = page.state;
    const image = imageNumber(page.here?.index, page.here?.place.image ?? 0);
    const link = h("a", { href: URL.createObjectURL(blob), download: `attention_${run.replace(/[^\w.-]+/g, "_")}_step${step}_image${image}.png` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
}

/** @param {import("./page.js").Page} page @returns {HTMLCanvasElement | null} */
export function drawPicture(page) {
  const { here, state, stage, notes } = page;
  if (!here || !stage || !notes) return null;
  const figures = [...stage.figures.children].filter((figure) => !(/** @type {HTMLElement} */ (figure).hidden));
  const heights = figures.map((figure) => { const base = figure.querySelector("canvas"); return base ? (WIDTH * base.height) / base.width : 0; });
  const width = 2 * MARGIN + figures.length * (WIDTH + GAP) - GAP;
  const style = getComputedStyle(document.body);
  const canvas = h("canvas");
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const font = (/** @type {string} */ size) => `${size} ${style.fontFamily}`;
  context.font = font("15px");
  const lines = [...notes.list.children].flatMap((item) => wrap(context, item.textContent ?? "", width - 2 * MARGIN));
  canvas.width = width;
  canvas.height = MARGIN + 60 + Math.max(...heights) + 90 + 21 * lines.length + MARGIN;
  context.fillStyle = style.backgroundColor;
  context.fillRect(0, 0, width, canvas.height);
  const text = (/** @type {string} */ words, /** @type {number} */ x, /** @type {number} */ y, size = "15px") => {
    context.font = font(size);
    context.fillStyle = style.color;
    context.fillText(words, x, y);
  };
  const way = state.direction === "to" && state.query !== "pool" ? "attended by" : "attends to";
  text(`${placeName(here)} · ${describe(here, state)} · ${tokenName(here.index, state.query)} ${way}`, MARGIN, MARGIN + 16, "600 18px");
  figures.forEach((figure, i) => paintFigure(context, figure, MARGIN + i * (WIDTH + GAP), MARGIN + 52, heights[i], text));
  lines.forEach((line, i) => text(line, MARGIN, canvas.height - MARGIN - 21 * (lines.length - 1 - i)));
  return canvas;
}

/** @param {CanvasRenderingContext2D} context @param {Element} figure @param {number} x @param {number} y @param {number} height @param {(words: string, x: number, y: number) => void} text */
function paintFigure(context, figure, x, y, height, text) {
  context.imageSmoothingEnabled = false;
  text(wrap(context, figure.querySelector("figcaption")?.textContent ?? "", WIDTH)[0] ?? "", x, y - 8);
  const missing = figure.querySelector(".missing:not([hidden])")?.textContent;
  if (missing) return wrap(context, missing, WIDTH).forEach((line, i) => text(line, x, y + 40 + 21 * i));
  for (const layer of figure.querySelectorAll(".stack canvas")) context.drawImage(/** @type {HTMLCanvasElement} */ (layer), x, y, WIDTH, height);
  const bar = /** @type {HTMLElement | null} */ (figure.querySelector(".bar"));
  if (!bar || bar.style.visibility === "hidden") return;
  context.drawImage(/** @type {HTMLCanvasElement} */ (bar.querySelector("canvas")), x, y + height + 10, WIDTH, 10);
  const [low, middle, high] = [...bar.querySelectorAll(".numbers span")].map((each) => each.textContent ?? "");
  text(low, x, y + height + 38);
  text(middle, x + (WIDTH - context.measureText(middle).width) / 2, y + height + 38);
  text(high, x + WIDTH - context.measureText(high).width, y + height + 38);
}

/** Lines that fit. @param {CanvasRenderingContext2D} context @param {string} words @param {number} width */
function wrap(context, words, width) {
  /** @type {string[]} */
  const lines = [];
  for (const word of words.split(" ")) {
    const longer = lines.length ? `${lines[lines.length - 1]} ${word}` : word;
    if (lines.length && context.measureText(longer).width <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}
