// @ts-check
/** One picture of patches: an image, a map over it, marks, the prefix tokens as tiles, a colour bar. */

import { cssColour, format, isLight } from "../maps/colour.js";
import { h, setAttribute, setText, syncChildren } from "../drawing/dom.js";
import { paintBar, paintImage, paintMarks } from "../drawing/draw.js";
import { INTERPOLATED } from "../maps/smooth.js";
import { tokenName } from "../maps/view.js";

/** @typedef {import("../maps/view.js").Maps} Maps */
/** @typedef {import("../maps/view.js").Shown} Shown */
/** @typedef {import("../maps/colour.js").Scale} Scale */
/** @typedef {{maps: Maps, title: string, detail: string, shown: Shown | null, scale: Scale | null, missing?: string}} Content missing: text instead of the picture */

export class Figure {
  /** @param {import("../page.js").Page} page @param {string} name for assistive technology and the saved picture */
  constructor(page, name) {
    this.page = page;
    this.name = name;
    /** @type {Content | null} */
    this.content = null;
    this.cursor = 0;
    this.title = h("b");
    this.detail = h("span", { class: "detail" });
    this.base = h("canvas", { class: "base", "aria-hidden": "true" });
    this.marks = h("canvas", { class: "marks", tabindex: 0, role: "application", "aria-roledescription": "patch grid" });
    this.missing = h("p", { class: "missing", hidden: true });
    this.tiles = h("div", { class: "tiles", role: "group", "aria-label": "Pooled row and prefix tokens" });
    this.bar = barElement();
    this.element = h("figure", { "data-name": name },
      h("figcaption", {}, this.title, " ", this.detail), h("div", { class: "stack" }, this.base, this.marks, this.missing), this.tiles, this.bar.element);
    this.listen();
  }

  listen() {
    this.marks.addEventListener("pointermove", (event) => this.point(this.at(event)));
    this.marks.addEventListener("pointerleave", () => this.page.point(null));
    this.marks.addEventListener("click", (event) => this.choose(this.at(event), event));
    this.marks.addEventListener("blur", () => this.page.point(null));
    this.marks.addEventListener("keydown", (event) => this.key(event));
  }

  /** The token under the pointer. @param {MouseEvent} event */
  at(event) {
    if (!this.content) return 0;
    const { rows, cols, prefix } = this.content.maps.grid;
    const place = this.marks.getBoundingClientRect();
    const within = (/** @type {number} */ fraction, /** @type {number} */ count) => Math.min(count - 1, Math.max(0, Math.floor(fraction * count)));
    const col = within((event.clientX - place.left) / place.width, cols);
    return prefix + within((event.clientY - place.top) / place.height, rows) * cols + col;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (!this.content) return;
    const { rows, cols, prefix } = this.content.maps.grid;
    this.cursor = Math.min(this.cursor, rows * cols - 1); // another step may have fewer patches
    const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (event.key === "Enter" || event.key === " ") this.choose(prefix + this.cursor, event);
    else if (move) {
      const row = Math.min(rows - 1, Math.max(0, Math.floor(this.cursor / cols) + move[0]));
      this.cursor = row * cols + Math.min(cols - 1, Math.max(0, (this.cursor % cols) + move[1]));
      this.point(prefix + this.cursor);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Show the values of a token, or of the one at its place in the view. @param {number} token */
  point(token) {
    const { here } = this.page;
    this.page.point({ token: here && this.content ? here.tokenAt(token, this.content.maps.gridName) : token });
  }

  /** Make a token the query; the pointer or cursor stays on it. @param {number} token @param {Event} event */
  choose(token, event) {
    if (!this.content) return;
    const { maps } = this.content;
    if (token >= maps.grid.prefix) this.cursor = token - maps.grid.prefix;
    if (!this.page.taken((part) => part.takePatch?.(token, event, maps))) this.page.choose(token, maps);
    this.point(token);
  }

  /** @param {Content} content */
  draw(content) {
    this.content = content;
    const { maps, shown, scale, missing = "" } = content;
    this.missing.hidden = !missing;
    this.base.style.visibility = this.marks.style.visibility = missing ? "hidden" : "";
    setText(this.missing, missing);
    setText(this.title, content.title);
    const aspect = String(maps.grid.width / maps.grid.height);
    if (this.base.style.aspectRatio !== aspect) this.base.style.aspectRatio = this.marks.style.aspectRatio = aspect;
    const { state, pictures } = this.page;
    setText(this.detail, `${content.detail}${state.smooth && shown && scale ? `, ${INTERPOLATED}` : ""}`);
    const map = shown && scale && { values: shown.values.subarray(maps.grid.prefix), hidden: shown.hidden, scale, opacity: state.opacity, smooth: state.smooth };
    paintImage(this.base, maps.grid, pictures.get(maps) ?? null, map, state.grid);
    setAttribute(this.marks, "aria-label", `${this.name}: ${content.title}, ${maps.grid.rows} rows of ${maps.grid.cols} patches. Arrow keys move, Enter makes a patch the query.`);
    this.drawTiles();
    this.bar.draw(scale);
  }

  drawTiles() {
    if (!this.content) return;
    const { maps, shown, scale } = this.content;
    this.tiles.hidden = !scale; // the plain image has its map beside it
    /** @type {(number | "pool")[]} */
    const tokens = ["pool", ...maps.index.prefix.keys()];
    const { state } = this.page;
    syncChildren(this.tiles, tokens, (i) => {
      const token = i === 0 ? "pool" : i - 1;
      const over = () => token !== "pool" && this.point(token);
      return h("button", { type: "button", class: "tile", onclick: () => this.page.choose(token, this.content?.maps), onpointerenter: over, onfocus: over, onpointerleave: () => this.page.point(null), onblur: () => this.page.point(null) });
    }, (tile, token) => {
      const value = token === "pool" || !shown ? null : shown.values[token];
      const hidden = token !== "pool" && shown?.hidden.has(token);
      setText(tile, `${tokenName(maps.index, token)}${value === null || !scale ? "" : hidden ? " ✕" : ` ${format(value, scale.percent)}`}`);
      const coloured = value !== null && scale && !hidden;
      tile.style.background = coloured ? cssColour(scale, value) : "";
      tile.style.color = coloured ? (isLight(scale, value) ? "#000" : "#fff") : "";
      setAttribute(tile, "aria-pressed", state.query === token);
    });
  }

  /** @param {import("../drawing/draw.js").Mark[]} marks @param {string} accent */
  drawMarks(marks, accent) {
    if (this.content) paintMarks(this.marks, this.content.maps.grid, marks, accent);
  }
}

/** A colour bar with its numbers, and a tick at uniform attention. */
export function barElement() {
  const canvas = h("canvas", { "aria-hidden": "true" });
  const numbers = [h("span"), h("span"), h("span")];
  const tick = h("div", { class: "tick" });
  const element = h("div", { class: "bar" }, tick, canvas, h("div", { class: "numbers" }, ...numbers));
  /** @param {Scale | null} scale */
  const draw = (scale) => {
    element.style.visibility = scale ? "" : "hidden";
    if (!scale) return;
    paintBar(canvas, scale);
    const values = [scale.low, (scale.low + scale.high) / 2, scale.high];
    values.forEach((value, i) => setText(numbers[i], format(value, scale.percent)));
    const { uniform = 0, high } = scale;
    setText(tick, uniform ? `uniform 1/${Math.round(1 / uniform)} = ${format(uniform, true)}` : "");
    const late = uniform / high > 0.5;
    tick.classList.toggle("late", late);
    tick.style.setProperty("--at", `${100 * (late ? 1 - uniform / high : uniform / high)}%`);
  };
  return { element, draw };
}
