// @ts-check
/** Several heads of a layer over one image, each with its hue. */

import { format, mapScale, scaleTo } from "../maps/colour.js";
import { h, setAttribute, setText, syncChildren } from "../drawing/dom.js";
import { cell, paintImage, stretch } from "../drawing/draw.js";
import { HUES, HUE_NAMES, blendOf, colouredHeads, patchesWon } from "../maps/hues.js";
import { PatchGrid } from "./patch_grid.js";
import { Picker } from "./picker.js";
import { MOST_COLOURS } from "../data/state.js";
import { tokenName } from "../maps/view.js";

/** Side of the square in the hue of the head that gives most, as a fraction of the patch. */
const CHIP = 0.42;

export class HeadColours {
  /** @param {import("../page.js").Page} page */
  constructor(page) {
    this.page = page;
    /** @type {Float32Array[]} */
    this.values = [];
    /** @type {number[]} */
    this.heads = [];
    this.picker = new Picker(page, false);
    this.grid = new PatchGrid("Heads in colours", (patch) => this.point(patch), (patch) => page.choose(patch + this.grid.grid.prefix));
    this.readout = h("p", { class: "view-readout", role: "status" });
    this.choices = h("div", { class: "hues", role: "group", "aria-label": "Heads that have a colour" });
    this.element = h("div", {}, h("p", { class: "says" }, "Each head of one layer has a hue. A patch mixes the hues of what its heads give; the square in its middle has the hue of the head that gives most. Its strength is the square root of the value as a fraction of the largest, or of four times uniform attention if that is more."),
      h("div", { class: "beside" }, h("figure", {}, this.grid.element), h("div", {}, this.picker.element, this.choices, this.readout)));
  }

  /** @param {number} head */
  toggle(head) {
    const { heads } = this;
    const colours = heads.includes(head) ? heads.filter((each) => each !== head) : [...heads, head].sort((a, b) => a - b);
    if (colours.length && colours.length <= MOST_COLOURS) this.page.store.set({ colours });
  }

  /** Why nothing is shown, or nothing. */
  obstacle() {
    const { here, state } = this.page;
    if (!here?.layers[here.layerOf(state)]) return "This layer is not loaded: load all layers above.";
    return here.obstacle({ ...state, method: "raw", target: "" });
  }

  draw() {
    const { here, state, pictures } = this.page;
    if (!here) return;
    this.picker.draw();
    const layer = here.layerOf(state);
    const obstacle = this.obstacle();
    this.heads = colouredHeads(state.colours, here.index.heads[layer], MOST_COLOURS);
    this.values = obstacle ? [] : this.heads.map((head) => here.small(state, layer, head));
    const left = state.hide ? new Set(obstacle ? [] : here.sinks({ ...state, method: "raw", target: "", head: "mean" })) : new Set();
    const hidden = (/** @type {number} */ patch) => left.has(patch + here.grid.prefix);
    this.grid.shape(here.grid);
    paintImage(this.grid.base, here.grid, pictures.get(here) ?? null, { values: new Float32Array(here.grid.rows * here.grid.cols), hidden: new Set(), scale: scaleTo(1, true), opacity: 0 }, false); // grey
    paintHues(this.grid.base, here.grid, this.values, hidden, { opacity: state.opacity, tokens: here.tokens });
    this.drawChoices(here.index.heads[layer], hidden);
    this.point(null);
    if (obstacle) setText(this.readout, obstacle);
  }

  /** The legend, which is also where heads are chosen. @param {number} count @param {(patch: number) => boolean} hidden */
  drawChoices(count, hidden) {
    const patches = this.grid.grid.rows * this.grid.grid.cols;
    const won = patchesWon(this.values, patches, hidden);
    syncChildren(this.choices, [...Array(count).keys()], (head) => h("button", { type: "button", onclick: () => this.toggle(head) }, h("i"), h("span")), (button, head) => {
      const at = this.heads.indexOf(head);
      const [hue, text] = button.children;
      /** @type {HTMLElement} */ (hue).style.background = at < 0 ? "" : `rgb(${HUES[at].join(" ")})`;
      const values = this.values[at];
      const most = values?.reduce((a, b) => (b > a ? b : a), 0);
      setText(text, values ? `head ${head + 1} · up to ${format(most ?? NaN, true)} · most in ${won[at]} of ${patches}` : `head ${head + 1}`);
      setAttribute(button, "aria-pressed", at >= 0);
      setAttribute(button, "title", at < 0 ? "Give this head a colour" : `${HUE_NAMES[at]}: click to take the colour away`);
      button.disabled = at < 0 && this.heads.length >= MOST_COLOURS;
    });
  }

  /** @param {number | null} patch */
  point(patch) {
    const { here, state } = this.page;
    if (!here || !this.values.length) return;
    const chosen = state.query === "pool" ? -1 : state.query - here.grid.prefix;
    this.grid.drawMarks([...(patch === null ? [] : [{ patch, kind: /** @type {"hover"} */ ("hover") }]), ...(chosen >= 0 ? [{ patch: chosen, kind: /** @type {"query"} */ ("query") }] : [])]);
    const way = state.direction === "to" && state.query !== "pool" ? "tokens that attend to it" : "tokens that it attends to";
    if (patch === null) return setText(this.readout, `Layer ${here.layerOf(state) + 1}, ${tokenName(here.index, state.query)}, ${way}. Point at a patch for what each head gives; at most ${MOST_COLOURS} heads have a colour.`);
    const ranked = this.heads.map((head, i) => ({ head, value: this.values[i][patch] })).sort((a, b) => b.value - a.value);
    setText(this.readout, `${tokenName(here.index, patch + here.grid.prefix)}: ${ranked.map(({ head, value }) => `head ${head + 1} ${format(value, true)}`).join(", ")}`);
  }
}

/** @param {HTMLCanvasElement} canvas @param {import("../drawing/draw.js").Grid} grid @param {Float32Array[]} heads @param {(patch: number) => boolean} hidden @param {{opacity: number, tokens: number}} how */
function paintHues(canvas, grid, heads, hidden, { opacity, tokens }) {
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const patches = grid.rows * grid.cols;
  const shown = [...Array(patches).keys()].filter((patch) => heads.length && !hidden(patch));
  const most = shown.reduce((high, patch) => heads.reduce((a, values) => (values[patch] > a ? values[patch] : a), high), 0);
  const { high } = mapScale(most, true, tokens); // else noise of uniform heads would look like a pattern
  const image = new ImageData(grid.cols, grid.rows);
  const blends = shown.map((patch) => ({ patch, ...blendOf(heads, patch, high) }));
  for (const { patch, red, green, blue, strength } of blends) image.data.set([red, green, blue, 255 * strength * opacity], 4 * patch);
  stretch(context, image);
  if (canvas.width / grid.cols < 12) return; // the square would be a dot
  for (const { patch, most, strength } of blends) {
    if (most < 0 || strength < 0.1) continue;
    const [x, y, width, height] = cell(canvas, grid, patch);
    context.globalAlpha = Math.min(1, 0.25 + strength);
    context.fillStyle = `rgb(${HUES[most].join(" ")})`;
    context.fillRect(x + (0.5 - CHIP / 2) * width, y + (0.5 - CHIP / 2) * height, CHIP * width, CHIP * height);
    context.globalAlpha = 1;
  }
}
