// @ts-check
/** Every head of every layer as a small map for the chosen query: click one to see it large. */

import { format, scaleTo } from "./colour.js";
import { checkbox, h, segmented, setAttribute, setText, syncChildren } from "./dom.js";
import { paintSmall } from "./draw.js";
import { sinkThreshold } from "./measures.js";
import { tokenName } from "./view.js";

/** @typedef {import("./measures.js").Measures} Measures */
/** @typedef {{layer: number, head: number, measures: Measures}} Cell */

export class Sheet {
  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    const set = page.store.set.bind(page.store);
    this.sort = segmented("Order of the heads", [["network", "by layer"], ["entropy", "entropy"], ["distance", "distance"], ["sink", "largest fraction"]], (sort) => set({ sort: /** @type {any} */ (sort) }));
    this.common = checkbox("one scale", (common) => set({ common }), "All small maps on one colour scale, else each on its own");
    this.query = h("span", { class: "detail" });
    this.sinkNote = h("span");
    this.cells = h("div", { class: "cells", role: "group", "aria-label": "Heads" });
    this.cells.addEventListener("keydown", (event) => this.key(event));
    /** @type {Cell[]} */
    this.order = [];
    this.element = h("section", { class: "sheet", "aria-label": "Layers and heads" },
      h("div", { class: "head" }, h("b", {}, "Layers × heads"), this.query, h("span", { class: "space" }), this.sort.element, this.common.element), this.cells,
      h("p", { class: "legend" }, h("span", { class: "flag uniform" }, "uniform"), "entropy at least 97 % of the largest possible in this image ",
        h("span", { class: "flag concentrated" }, "concentrated"), "one token gets at least half of all its attention in this image ",
        h("span", { class: "flag sink" }, "sink"), "concentrated on a token that is attended to whatever the image shows", this.sinkNote));
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const columns = this.page.state.sort === "network" ? Math.max(...(this.page.here?.index.heads ?? [1])) : this.perRow();
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    const buttons = [.../** @type {NodeListOf<HTMLElement>} */ (this.cells.querySelectorAll(".small"))];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    const at = buttons.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    buttons[Math.min(buttons.length - 1, Math.max(0, at + by))]?.focus();
  }

  /** Cells in a line, where they wrap. */
  perRow() {
    const buttons = [.../** @type {NodeListOf<HTMLElement>} */ (this.cells.querySelectorAll(".small"))];
    return Math.max(1, buttons.filter((button) => button.offsetTop === buttons[0].offsetTop).length);
  }

  /** Lay the cells out anew, as the page's width changed. */
  arrange() {}

  /** @returns {Cell[]} */
  sorted() {
    const { here, state } = this.page;
    const all = (here?.measures() ?? []).flatMap((heads, layer) => heads.map((measures, head) => ({ layer, head, measures })));
    const by = state.sort;
    if (by === "network") return all;
    return all.sort((a, b) => b.measures[by] - a.measures[by]);
  }

  draw() {
    const { here, state } = this.page;
    if (!here) return;
    this.sort.update(state.sort);
    this.common.input.checked = state.common;
    const way = state.direction === "to" && state.query !== "pool" ? "tokens that attend to it" : "tokens that it attends to";
    setText(this.query, `${tokenName(here.index, state.query)}, ${way}`);
    const { sinks } = here.index;
    const how = sinks?.layers ? `in nine of ten of ${sinks.images} images, ${sinkThreshold(here.tokens)}` : `unknown here: it takes four different images, and ${sinks?.images ?? "none"} ${sinks?.images === 1 ? "was" : "were"} compared`;
    setText(this.sinkNote, ` (${how})`);
    if (state.query !== "pool" && state.query >= here.tokens) return;
    this.order = this.sorted();
    const wrapped = state.sort !== "network";
    this.cells.classList.toggle("wrapped", wrapped);
    this.cells.style.setProperty("--heads", String(Math.max(...here.index.heads)));
    const values = this.order.map(({ layer, head }) => here.small(state, layer, head));
    const highest = values.map((each) => each.reduce((a, b) => (b > a ? b : a), 0));
    const most = highest.reduce((a, b) => Math.max(a, b), 0);
    syncChildren(this.cells, this.order, (i) => this.make(i), (button, cell, i) => {
      paintSmall(/** @type {HTMLCanvasElement} */ (button.firstElementChild), values[i], here.grid, scaleTo(state.common ? most : highest[i], true));
      this.update(button, cell, highest[i], wrapped);
    });
  }

  /** @param {number} i */
  make(i) {
    const choose = () => {
      const { layer, head } = this.order[i];
      this.page.store.set({ method: "raw", layer, head });
    };
    return h("button", { type: "button", class: "small", onclick: choose },
      h("canvas", { "aria-hidden": "true" }), h("span", { class: "name" }), h("span", { class: "flag" }));
  }

  /** @param {HTMLElement} button @param {Cell} cell @param {number} highest @param {boolean} wrapped */
  update(button, { layer, head, measures }, highest, wrapped) {
    const { here, state } = this.page;
    if (!here) return;
    const chosen = state.method === "raw" && here.layerOf(state) === layer && here.headOf(state) === head;
    const flag = measures.uniform ? "uniform" : !measures.concentrated ? "" : here.isSink(layer, head, measures.sinkToken) ? "sink" : "concentrated";
    const numbers = { network: "", entropy: measures.entropy.toFixed(2), distance: `${measures.distance.toFixed(1)} px`, sink: format(measures.sink, true) };
    setText(button.children[1], wrapped ? `${layer + 1}·${head + 1}  ${numbers[state.sort]}` : head === 0 ? `layer ${layer + 1} · 1` : `${head + 1}`);
    setText(button.children[2], flag);
    button.className = `small ${flag}`;
    button.children[2].className = `flag ${flag}`;
    button.style.gridColumn = wrapped ? "" : String(head + 1);
    button.style.gridRow = wrapped ? "" : String(layer + 1);
    const words = `layer ${layer + 1}, head ${head + 1}: entropy ${measures.entropy.toFixed(2)} nats, ${format(measures.normalisedEntropy, true)} of the largest; ` +
      `distance ${measures.distance.toFixed(1)} pixels; largest fraction of its attention ${format(measures.sink, true)}, on ${tokenName(here.index, measures.sinkToken)}; ` +
      `largest value here ${format(highest, true)}${flag ? `; ${flag}` : ""}`;
    setAttribute(button, "aria-label", words);
    setAttribute(button, "title", words);
    setAttribute(button, "aria-pressed", chosen);
    const first = this.order[0]?.layer === layer && this.order[0]?.head === head;
    const anyChosen = state.method === "raw" && typeof here.headOf(state) === "number";
    button.tabIndex = (anyChosen ? chosen : first) ? 0 : -1;
  }
}
