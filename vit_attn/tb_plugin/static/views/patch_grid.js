// @ts-check
/** A canvas of patches that is pointed at and chosen from, by mouse and keyboard. */

import { h, setAttribute } from "../drawing/dom.js";
import { paintMarks } from "../drawing/draw.js";

/** @typedef {import("../drawing/draw.js").Grid} Grid */

export class PatchGrid {
  /** @param {string} label what Enter does @param {(patch: number | null) => void} point @param {(patch: number) => void} choose */
  constructor(label, point, choose) {
    this.label = label;
    this.point = point;
    this.choose = choose;
    this.cursor = 0;
    /** @type {Grid} */
    this.grid = { rows: 1, cols: 1, prefix: 0, height: 1, width: 1 };
    this.base = h("canvas", { class: "base", "aria-hidden": "true" });
    this.marks = h("canvas", { class: "marks", tabindex: 0, role: "application", "aria-roledescription": "patch grid" });
    this.element = h("div", { class: "stack" }, this.base, this.marks);
    this.marks.addEventListener("pointermove", (event) => point(this.at(event)));
    this.marks.addEventListener("pointerleave", () => point(null));
    this.marks.addEventListener("blur", () => point(null));
    this.marks.addEventListener("click", (event) => choose(this.at(event)));
    this.marks.addEventListener("keydown", (event) => this.key(event));
  }

  /** The patch under the pointer. @param {MouseEvent} event */
  at(event) {
    const place = this.marks.getBoundingClientRect();
    const within = (/** @type {number} */ fraction, /** @type {number} */ count) => Math.min(count - 1, Math.max(0, Math.floor(fraction * count)));
    const col = within((event.clientX - place.left) / place.width, this.grid.cols);
    return within((event.clientY - place.top) / place.height, this.grid.rows) * this.grid.cols + col;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const { rows, cols } = this.grid;
    const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (event.key === "Enter" || event.key === " ") this.choose(this.cursor);
    else if (!move) return;
    else {
      const row = Math.min(rows - 1, Math.max(0, Math.floor(this.cursor / cols) + move[0]));
      this.cursor = row * cols + Math.min(cols - 1, Math.max(0, (this.cursor % cols) + move[1]));
      this.point(this.cursor);
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** Shape it for a grid; the base is painted by the caller. @param {Grid} grid */
  shape(grid) {
    this.grid = grid;
    this.cursor = Math.min(this.cursor, grid.rows * grid.cols - 1);
    this.base.style.aspectRatio = this.marks.style.aspectRatio = String(grid.width / grid.height);
    setAttribute(this.marks, "aria-label", `${this.label}: ${grid.rows} rows of ${grid.cols} patches. Arrow keys move, Enter chooses.`);
  }

  /** @param {import("../drawing/draw.js").Mark[]} marks */
  drawMarks(marks) {
    paintMarks(this.marks, this.grid, marks, getComputedStyle(document.documentElement).getPropertyValue("--accent").trim());
  }
}
