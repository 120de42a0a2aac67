// @ts-check
/** Every head of every layer as a small map for the chosen query: click one to see it large, in place. */

import { mapScale } from "../maps/colour.js";
import { checkbox, h, segmented, setText, syncChildren } from "../drawing/dom.js";
import { paintSmall } from "../drawing/draw.js";
import { Enlarged } from "./enlarged.js";
import { helpButton } from "../words/help.js";
import { FLAGS, makeCell, updateCell } from "./cell.js";
import { arrangement, neighbour } from "./grid.js";
import { sinkThreshold } from "../maps/measures.js";
import { methodPhrase } from "../words/sentence.js";
import { tokenName } from "../maps/view.js";

/** @typedef {import("./cell.js").Cell} Cell */

export class Sheet {
  /** @param {import("../page.js").Page} page */
  constructor(page) {
    this.page = page;
    const set = page.store.set.bind(page.store);
    this.sort = segmented("Order of the heads", [["network", "by layer"], ["entropy", "entropy"], ["distance", "distance"], ["sink", "largest fraction"]], (sort) => set({ sort: /** @type {any} */ (sort) }));
    this.common = checkbox("one scale", (common) => set({ common }), "All small maps on one colour scale, else each on its own");
    this.query = h("span", { class: "detail" });
    this.sinkNote = h("span");
    this.enlarged = new Enlarged(page);
    this.columns = h("div", { class: "headings", "aria-hidden": "true" });
    this.rows = h("div", { class: "headings", "aria-hidden": "true" });
    this.buttons = h("div", { class: "buttons", role: "group", "aria-label": "Heads" });
    this.cells = h("div", { class: "cells" }, this.columns, this.rows, this.buttons, this.enlarged.element);
    this.buttons.addEventListener("keydown", (event) => this.key(event));
    /** @type {Cell[]} */
    this.order = [];
    this.element = h("section", { class: "sheet", "aria-label": "Layers and heads" },
      h("div", { class: "head" }, h("h2", {}, "Layers × heads"), this.query, h("span", { class: "space" }), this.sort.element, this.common.element), this.cells, this.legend());
  }

  legend() {
    const flag = (/** @type {string} */ name) => h("span", { class: `flag ${name}` }, h("span", { class: "sign", "aria-hidden": "true" }, FLAGS[name]), h("span", { class: "word" }, name));
    const entry = (/** @type {string} */ name, /** @type {(string | Node)[]} */ ...meaning) => h("span", { class: "entry" }, flag(name), " ", ...meaning);
    return h("div", { class: "legend" },
      entry("uniform", "entropy at least 97 % of the largest possible in this image"),
      entry("concentrated", "one token gets at least half of all its attention in this image"),
      entry("sink", "concentrated on a token that is attended to whatever the image shows", this.sinkNote),
      h("span", { class: "entry" }, helpButton("entropy", "entropy"), helpButton("distance", "distance"), helpButton("sink", "largest fraction"), helpButton("sinks", "sinks")));
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const buttons = [.../** @type {HTMLCollectionOf<HTMLElement>} */ (this.buttons.children)];
    const at = buttons.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    const next = neighbour(this.order, at, event.key, this.page.state.sort === "network" ? 0 : this.perRow());
    if (next < 0) return;
    event.preventDefault();
    event.stopPropagation();
    buttons[next].focus();
  }

  /** Cells in a line, where they wrap. */
  perRow() {
    return Math.max(1, getComputedStyle(this.cells).gridTemplateColumns.split(" ").length);
  }

  /** @returns {Cell[]} */
  sorted() {
    const { here, state } = this.page;
    const all = (here?.measures() ?? []).flatMap((heads, layer) => heads.map((measures, head) => ({ layer, head, measures })));
    const by = state.sort;
    return by === "network" ? all : all.sort((a, b) => b.measures[by] - a.measures[by]);
  }

  draw() {
    const { here, state } = this.page;
    if (!here) return;
    this.sort.update(state.sort);
    this.common.input.checked = state.common;
    this.drawTexts(here);
    if (state.query !== "pool" && state.query >= here.tokens) return;
    this.order = this.sorted();
    const maps = this.order.map(({ layer, head }) => this.maps(layer, head));
    const highest = maps.map((sides) => Math.max(...sides.map((side) => side?.reduce((a, b) => (b > a ? b : a), 0) ?? 0)));
    const most = highest.reduce((a, b) => Math.max(a, b), 0);
    syncChildren(this.buttons, this.order, (i) => makeCell((event) => this.choose(this.order[i], event)), (button, cell, i) => {
      const scale = mapScale(state.common ? most : highest[i], true, here.tokens);
      syncChildren(/** @type {HTMLElement} */ (button.firstElementChild), maps[i], () => h("canvas", { "aria-hidden": "true" }), (canvas, values) => paintSmall(canvas, values ?? new Float32Array(here.grid.rows * here.grid.cols).fill(NaN), here.grid, scale));
      updateCell(button, cell, here, state, highest[i]);
      for (const part of this.page.extras.below ?? []) part.drawHead?.(button, cell.layer, cell.head);
    });
    const chosen = this.order.findIndex(({ layer, head }) => state.method === "raw" && here.layerOf(state) === layer && here.headOf(state) === head);
    [...this.buttons.children].forEach((button, i) => (/** @type {HTMLElement} */ (button).tabIndex = i === Math.max(0, chosen) ? 0 : -1));
    this.enlarged.draw(this.order[chosen]);
    this.arrange();
  }

  /** @param {import("../maps/view.js").Maps} here */
  drawTexts(here) {
    const { pinned, state } = this.page;
    const way = state.direction === "to" && state.query !== "pool" ? "tokens that attend to it" : "tokens that it attends to";
    const sides = pinned && this.comparable ? "; left A, right B" : "";
    const despite = state.method === "raw" ? "" : `, whatever the method above (${methodPhrase(here.index, state.method)})`;
    setText(this.query, `raw attention of each head${despite}: ${tokenName(here.index, state.query)}, ${way}${sides}`);
    const { sinks } = here.index;
    const how = sinks?.layers ? `in nine of ten of ${sinks.images} images, ${sinkThreshold(here.tokens)}` : `unknown here: it takes four different images, and ${sinks?.images ?? "none"} ${sinks?.images === 1 ? "was" : "were"} compared`;
    setText(this.sinkNote, ` (${how})`);
  }

  /** Whether A has the same patches, so that its small maps can stand beside those of B. */
  get comparable() {
    const { here, pinned } = this.page;
    return Boolean(here && pinned && pinned.gridName === here.gridName);
  }

  /** Small maps of a head: that of A where two are compared, and the one that is shown. @param {number} layer @param {number} head @returns {(Float32Array | null)[]} */
  maps(layer, head) {
    const { here, pinned, stage, state } = this.page;
    if (!here) return [];
    const own = here.small(state, layer, head);
    if (!pinned || !this.comparable) return [own];
    const there = (pinned.layers[layer]?.heads ?? 0) > head;
    return [there ? pinned.small({ ...state, query: stage?.queryIn(pinned) ?? state.query }, layer, head) : null, own];
  }

  /** @param {Cell} cell @param {Event} event */
  choose({ layer, head }, event) {
    const { here, state, store } = this.page;
    if (!here || this.page.taken((part) => part.takeHead?.(layer, head, event))) return;
    if (state.method !== "raw") this.page.say(`The method is now raw attention, of layer ${layer + 1}, head ${head + 1}; it was ${methodPhrase(here.index, state.method)}.`);
    this.enlarged.open(state.method);
    store.set({ method: "raw", layer, head });
    this.draw(); // the head may have been chosen before
    this.enlarged.figures[1].element.scrollIntoView({ block: "nearest" });
  }

  /** Give each cell its place, by layers and heads or one after another, over the whole width. */
  arrange() {
    const { here, state } = this.page;
    if (!here) return;
    const wrapped = state.sort !== "network";
    this.cells.classList.toggle("wrapped", wrapped);
    this.cells.classList.toggle("two", this.comparable);
    const opened = this.enlarged.element.hidden ? undefined : this.enlarged.cell;
    const layout = arrangement(here.index.heads, this.element.clientWidth, this.comparable, opened?.layer);
    this.cells.style.gridTemplateColumns = wrapped ? "" : layout.columns;
    this.cells.style.maxWidth = wrapped ? "" : `${layout.width}px`;
    const title = (/** @type {string} */ text) => h("span", {}, text);
    syncChildren(this.columns, wrapped ? [] : layout.heads, () => title(""), (label, { text, area }) => { setText(label, text); label.style.gridArea = area; });
    syncChildren(this.rows, wrapped ? [] : layout.layers, () => title(""), (label, { text, area }) => { setText(label, text); label.style.gridArea = area; });
    this.order.forEach(({ layer, head }, i) => {
      const button = /** @type {HTMLElement} */ (this.buttons.children[i]);
      button.style.gridArea = wrapped ? "" : layout.cell(layer, head);
      button.style.order = String(i);
    });
    const at = this.order.findIndex(({ layer, head }) => layer === opened?.layer && head === opened?.head);
    this.enlarged.element.style.gridRow = wrapped ? "" : layout.enlarged;
    this.enlarged.element.style.order = String(at);
  }
}
