// @ts-check
/** What a click cuts: the modes, and the choices of each. */

import { fillSelect, h, segmented, setAttribute, setText, syncChildren } from "../drawing/dom.js";
import { tokenName } from "../maps/view.js";
import { isSameCut } from "./cuts.js";

/** @typedef {import("./cuts.js").Cut} Cut */
/** @typedef {import("../maps/view.js").Maps} Maps */
/** @typedef {"look" | "patch" | "edge" | "head"} Mode */

/** @type {[Mode, string][]} */
const MODES = [["look", "Look"], ["patch", "Cut patches"], ["edge", "Cut edge"], ["head", "Cut head"]];
/** @type {Record<Mode, string>} */
const HINTS = {
  look: "A click on a patch makes it the query. Choose what a click cuts instead.",
  patch: "Click patches: no other token attends to them any more, in all layers and heads. Click again to put one back.",
  edge: "Click the key that the query does not attend to any more.",
  head: "Click heads, here or in the sheet below: their output becomes zero.",
};

export class CutModes {
  /** @param {import("../page.js").Page} page @param {(cut: Cut) => void} toggle */
  constructor(page, toggle) {
    this.page = page;
    this.toggle = toggle;
    /** @type {Mode} */
    this.mode = "look";
    this.picking = false; // whether the next click chooses the query of an edge
    this.cursor = 0; // the head that the keyboard is on
    this.choice = segmented("What a click does", MODES, (mode) => this.choose(/** @type {Mode} */ (mode)));
    this.hint = h("p", { class: "hint" });
    this.from = h("span");
    this.pick = h("button", { type: "button", onclick: () => this.startPicking() });
    this.layer = h("select", { "aria-label": "Layers in which the edge is cut", onchange: () => this.draw([]) });
    this.head = h("select", { "aria-label": "Heads in which the edge is cut" });
    this.edge = h("div", { class: "edge-choices" }, h("p", {}, "from ", this.from, " ", this.pick), h("div", { class: "pair" }, this.layer, this.head));
    this.prefix = h("div", { class: "prefix-keys", role: "group", "aria-label": "Tokens that are no patches" });
    this.heads = h("div", { class: "head-keys", role: "group", "aria-label": "Heads to cut", onkeydown: (/** @type {KeyboardEvent} */ event) => this.moveHead(event) });
    this.element = h("div", { class: "cut-modes" }, this.choice.element, this.hint, this.edge, this.prefix, this.heads);
  }

  /** @param {Mode} mode */
  choose(mode) {
    this.mode = mode;
    this.picking = false;
    this.page.draw();
  }

  startPicking() {
    this.picking = !this.picking;
    this.page.draw();
  }

  /** The edge from the page's query to a key, as the choices say. @param {number} key @param {number | "pool"} query @returns {Cut} */
  edgeTo(key, query = this.page.state.query) {
    const number = (/** @type {HTMLSelectElement} */ select) => (select.value === "" ? null : Number(select.value));
    return { kind: "edge", query, key, layer: number(this.layer), head: number(this.head) };
  }

  /** A click on a token: whether it cut something. @param {number} token */
  takeToken(token) {
    if (this.mode === "patch") this.toggle({ kind: "patch", token });
    else if (this.mode === "edge" && !this.picking) this.toggle(this.edgeTo(token));
    else {
      this.picking = false;
      return false;
    }
    return true;
  }

  /** @param {number} layer @param {number} head */
  takeHead(layer, head) {
    if (this.mode === "head") this.toggle({ kind: "head", layer, head });
    return this.mode === "head";
  }

  /** @param {KeyboardEvent} event */
  moveHead(event) {
    const counts = this.page.here?.index.heads ?? [];
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: counts[0] ?? 0, ArrowUp: -(counts[0] ?? 0) }[event.key];
    if (!by) return;
    const buttons = /** @type {HTMLElement[]} */ ([...this.heads.querySelectorAll("button")]);
    this.cursor = Math.min(buttons.length - 1, Math.max(0, this.cursor + by));
    buttons.forEach((button, i) => (button.tabIndex = i === this.cursor ? 0 : -1));
    buttons[this.cursor]?.focus();
    event.preventDefault();
    event.stopPropagation();
  }

  /** @param {Cut[]} cuts */
  draw(cuts) {
    const { here, state } = this.page;
    if (!here) return;
    this.choice.update(this.mode);
    setText(this.hint, this.picking ? "Click the patch, or the tile below the map, that becomes the query." : HINTS[this.mode]);
    this.edge.hidden = this.mode !== "edge";
    this.prefix.hidden = !here.grid.prefix || (this.mode !== "patch" && this.mode !== "edge");
    this.heads.hidden = this.mode !== "head";
    setText(this.from, tokenName(here.index, state.query));
    setText(this.pick, this.picking ? "Keep it" : "Choose another query");
    this.fillWhere(here);
    this.drawPrefix(here, cuts);
    if (!this.heads.hidden) this.drawHeads(here, cuts);
  }

  /** Layers, and the heads that the chosen layer has, or that every layer has. @param {Maps} here */
  fillWhere({ index }) {
    const layers = index.heads.map((_, i) => ({ value: String(i), text: `layer ${i + 1}` }));
    fillSelect(this.layer, [{ value: "", text: "all layers" }, ...layers], this.layer.value);
    if (this.layer.selectedIndex < 0) this.layer.value = ""; // another network had more
    const count = this.layer.value === "" ? Math.min(...index.heads) : index.heads[Number(this.layer.value)];
    const heads = Array.from({ length: count }, (_, i) => ({ value: String(i), text: `head ${i + 1}` }));
    fillSelect(this.head, [{ value: "", text: "all heads" }, ...heads], this.head.value);
    if (this.head.selectedIndex < 0) this.head.value = "";
  }

  /** @param {Maps} here @param {Cut[]} cuts */
  drawPrefix({ index }, cuts) {
    syncChildren(this.prefix, index.prefix, () => h("button", { type: "button", class: "tile" }), (button, name, token) => {
      const cut = this.mode === "edge" ? this.edgeTo(token) : /** @type {Cut} */ ({ kind: "patch", token });
      setText(button, this.mode === "edge" ? `→ ${name}` : name);
      setAttribute(button, "aria-label", this.mode === "edge" ? `Cut the edge to ${name}` : `Cut ${name} as a key`);
      setAttribute(button, "aria-pressed", cuts.some((each) => isSameCut(each, cut)));
      button.onclick = () => this.takeToken(token);
    });
  }

  /** @param {Maps} here @param {Cut[]} cuts */
  drawHeads({ index }, cuts) {
    const cut = new Set(cuts.flatMap((each) => (each.kind === "head" ? [`${each.layer} ${each.head}`] : [])));
    let first = 0;
    syncChildren(this.heads, index.heads, () => h("div", { class: "of-layer" }, h("span", { class: "detail", "aria-hidden": "true" }), h("span", { class: "of-heads" })), (row, count, layer) => {
      setText(row.children[0], `${layer + 1}`);
      const before = first;
      syncChildren(/** @type {HTMLElement} */ (row.children[1]), [...Array(count).keys()], () => h("button", { type: "button" }), (button, head) => {
        setText(button, `${head + 1}`);
        setAttribute(button, "aria-label", `layer ${layer + 1}, head ${head + 1}`);
        setAttribute(button, "aria-pressed", cut.has(`${layer} ${head}`));
        button.tabIndex = before + head === this.cursor ? 0 : -1;
        button.onclick = () => {
          this.cursor = before + head;
          this.takeHead(layer, head);
        };
      });
      first += count;
    });
  }
}
