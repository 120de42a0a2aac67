// @ts-check
/** Every token against every token: rows are queries, columns keys. */

import { mapScale } from "../maps/colour.js";
import { h, setAttribute, setText } from "../drawing/dom.js";
import { paintCross, paintMatrix } from "../drawing/draw.js";
import { barElement } from "./figure.js";
import { helpButton } from "../words/help.js";
import { isClassSpecific } from "../maps/methods.js";

export class Matrix {
  /** @param {import("../page.js").Page} page */
  constructor(page) {
    this.page = page;
    /** @type {Float32Array | null} */
    this.values = null;
    /** @type {import("../maps/colour.js").Scale | null} */
    this.scale = null;
    /** @type {Set<number>} */
    this.left = new Set();
    this.cursor = [0, 0];
    this.detail = h("span", { class: "detail" });
    this.base = h("canvas", { class: "base square", "aria-hidden": "true" });
    this.marks = h("canvas", { class: "marks square", tabindex: 0, role: "application", "aria-roledescription": "matrix" });
    this.missing = h("p", { class: "missing", hidden: true });
    this.axes = h("p", { class: "axes" }, "rows: query ↓ · columns: key → ", helpButton("matrix"));
    this.bar = barElement();
    this.element = h("figure", { "data-name": "Matrix" },
      h("figcaption", {}, h("b", {}, "Matrix"), " ", this.detail),
      h("div", { class: "stack" }, this.base, this.marks, this.missing), this.axes, this.bar.element);
    this.marks.addEventListener("pointermove", (event) => this.hover(...this.at(event)));
    this.marks.addEventListener("pointerleave", () => page.point(null));
    this.marks.addEventListener("blur", () => page.point(null));
    this.marks.addEventListener("click", (event) => this.choose(...this.at(event), event));
    this.marks.addEventListener("keydown", (event) => this.key(event));
  }

  /** Query and key under the pointer. @param {MouseEvent} event @returns {[number, number]} */
  at(event) {
    const tokens = this.page.here?.tokens ?? 1;
    const place = this.marks.getBoundingClientRect();
    const within = (/** @type {number} */ fraction) => Math.min(tokens - 1, Math.max(0, Math.floor(fraction * tokens)));
    return [within((event.clientY - place.top) / place.height), within((event.clientX - place.left) / place.width)];
  }

  /** @param {number} query @param {number} key */
  hover(query, key) {
    if (this.values) this.page.point({ query, key });
  }

  /** Make a row the query. @param {number} query @param {number} key @param {Event} event */
  choose(query, key, event) {
    if (!this.page.taken((part) => part.takeCell?.(query, key, event))) this.page.choose(query);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const tokens = this.page.here?.tokens ?? 1;
    this.cursor = this.cursor.map((at) => Math.min(tokens - 1, at)); // another step may have fewer tokens
    const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (event.key === "Enter" || event.key === " ") this.choose(this.cursor[0], this.cursor[1], event);
    else if (!move) return;
    else this.cursor = this.cursor.map((at, i) => Math.min(tokens - 1, Math.max(0, at + move[i])));
    this.hover(this.cursor[0], this.cursor[1]);
    event.preventDefault();
    event.stopPropagation();
  }

  /** @param {Set<number>} hidden tokens that are left out as keys */
  draw(hidden) {
    const { here, state } = this.page;
    if (!here) return;
    this.values = here.obstacle({ ...state, query: "pool" }) ? null : here.matrix(state);
    this.missing.hidden = Boolean(this.values);
    this.base.style.visibility = this.marks.style.visibility = this.values ? "" : "hidden";
    setText(this.missing, this.values ? "" : here.matrixObstacle(state) || here.obstacle(state));
    setText(this.detail, `${here.tokens} × ${here.tokens}`);
    setAttribute(this.marks, "aria-label", `Matrix of ${here.tokens} queries by ${here.tokens} keys. Arrow keys move, Enter makes the row the query.`);
    this.scale = null;
    this.left = hidden;
    if (!this.values) return this.bar.draw(null);
    let most = 0;
    for (let i = 0; i < this.values.length; i++) if (this.values[i] > most && !hidden.has(i % here.tokens)) most = this.values[i];
    this.scale = mapScale(most, !isClassSpecific(here.index, state.method), here.tokens);
    paintMatrix(this.base, this.values, this.scale, hidden);
    this.bar.draw(this.scale);
  }

  /** @param {number} query @param {number} key @param {string} accent */
  drawMarks(query, key, accent) {
    const { here } = this.page;
    if (here) paintCross(this.marks, here.tokens, here.grid.prefix, query, key, accent);
  }
}
