// @ts-check
/** All probe images under one method, layer and head, on one scale. */

import { format, mapScale, megabytes } from "../maps/colour.js";
import { h, setAttribute, setText, syncChildren } from "../drawing/dom.js";
import { paintImage } from "../drawing/draw.js";
import { barElement } from "../parts/figure.js";
import { loadImage, LOAD_BYTES } from "../data/loading.js";
import { isClassSpecific } from "../maps/methods.js";
import { predictionOf, shownImages } from "../maps/predictions.js";
import { INTERPOLATED } from "../maps/smooth.js";
import { describe } from "../parts/stage.js";
import { bytesNeeded, layersNeeded, loadValues } from "../maps/values.js";
import { imageNumber, tokenName } from "../maps/view.js";

/** Requests that are under way at once. */
const TOGETHER = 4;
/** What the values of an image depend on. */
const DEPENDS = /** @type {const} */ (["method", "target", "layer", "head", "query", "queryGrid", "direction"]);

export class ImageGrid {
  /** @param {import("../page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.loaded = "";
    /** @type {Map<number, {values: Float32Array, picture: HTMLImageElement, index: import("../maps/view.js").Index}>} */
    this.found = new Map();
    this.problem = "";
    this.allowed = false;
    this.text = h("p", { class: "says" });
    this.button = h("button", { type: "button", hidden: true, onclick: () => { this.allowed = true; this.draw(); } });
    this.bar = barElement();
    this.cells = h("div", { class: "image-cells", role: "group", "aria-label": page.source.ofPictures ? "All pictures" : "All probe images" });
    this.element = h("div", {}, this.text, this.button, h("div", { class: "grid-bar" }, this.bar.element), this.cells);
  }

  /** Draw what is loaded, and load what is missing. */
  draw() {
    const { here, state } = this.page;
    if (!here) return;
    const key = JSON.stringify([here.place.run, here.place.step, ...DEPENDS.map((name) => state[name])]);
    const bytes = here.index.images.length * bytesNeeded(here.index, state, here.layerOf(state));
    const waits = bytes > LOAD_BYTES && !this.allowed;
    this.button.hidden = !waits;
    setText(this.button, `Load the maps of all ${here.index.images.length} images (${megabytes(bytes)})`);
    if (key !== this.loaded && !waits) {
      this.loaded = key;
      this.found = new Map();
      this.problem = here.obstacle({ ...state, method: layersNeeded(here.index, state, 0) ? "raw" : state.method }) && here.obstacle(state);
      if (!this.problem) this.load(key);
    }
    this.paint();
  }

  /** @param {string} key of the request; one that is no longer wanted is given up */
  async load(key) {
    const { here, state, source } = this.page;
    if (!here) return;
    const waiting = shownImages(here.index, false, 0);
    const next = async () => {
      for (let image = waiting.shift(); image !== undefined && this.loaded === key; image = waiting.shift()) {
        const place = { ...here.place, image };
        const index = here.index.asks ? await source.step(place.run, place.step, image) : here.index; // a network that takes any size has a grid for each picture
        const [values, picture] = await Promise.all([loadValues(source, place, index, state), loadImage(source.imageUrl(place))]);
        if (this.loaded !== key) return;
        this.found.set(image, { values, picture, index });
      }
    };
    try {
      await Promise.all(Array.from({ length: TOGETHER }, next));
    } catch (error) {
      if (this.loaded === key) this.problem = error instanceof Error ? error.message : String(error);
    }
    if (this.loaded === key) this.paint();
  }

  paint() {
    const { here, state } = this.page;
    if (!here) return;
    const images = shownImages(here.index, state.wrong, -1);
    const { prefix } = here.grid;
    const most = images.flatMap((image) => this.found.get(image) ?? []).reduce((high, { values }) => values.subarray(prefix).reduce((a, b) => (b > a ? b : a), high), 0);
    const scale = mapScale(most, !isClassSpecific(here.index, state.method), here.tokens);
    this.bar.draw(this.found.size ? scale : null);
    setText(this.text, this.sentence(images.length));
    syncChildren(this.cells, images, () => this.make(), (button, image) => this.update(button, image, scale));
  }

  make() {
    const button = h("button", { type: "button", class: "image-cell", onclick: () => this.page.store.set({ image: Number(button.dataset.image) }) }, h("canvas", { "aria-hidden": "true" }), h("span"), h("span"));
    return button;
  }

  /** @param {HTMLElement} button @param {number} image @param {import("../maps/colour.js").Scale} scale */
  update(button, image, scale) {
    const { here, state } = this.page;
    if (!here) return;
    const found = this.found.get(image);
    const index = found?.index ?? here.index;
    const about = index.images[image];
    const { prefix } = here.grid;
    const [rows, cols] = index.grid;
    const grid = { rows, cols, prefix, height: about.size[0], width: about.size[1] };
    const canvas = /** @type {HTMLCanvasElement} */ (button.firstElementChild);
    button.dataset.image = String(image);
    canvas.style.aspectRatio = String(grid.width / grid.height);
    paintImage(canvas, grid, found?.picture ?? null, found ? { values: found.values.subarray(prefix), hidden: new Set(), scale, opacity: state.opacity, smooth: state.smooth } : null, false);
    const high = found?.values.subarray(prefix).reduce((a, b) => (b > a ? b : a), 0);
    const name = `${imageNumber(here.index, image)}${about.label ?? about.name ? ` · ${about.label ?? about.name}` : ""}`;
    setText(button.children[1], name);
    setText(button.children[2], predictionOf(about));
    button.children[2].classList.toggle("wrong", about.right === false);
    setAttribute(button, "aria-pressed", image === here.place.image);
    setAttribute(button, "aria-label", `image ${[name.replace(" · ", ", "), predictionOf(about)].filter(Boolean).join(", ")}${high === undefined ? "" : `, largest value of a patch ${format(high, scale.percent)}`}`);
  }

  /** @param {number} count */
  sentence(count) {
    const { here, state } = this.page;
    if (!here) return "";
    if (this.problem) return this.problem;
    const way = state.direction === "to" && state.query !== "pool" ? "tokens that attend to it" : "tokens that it attends to";
    const own = !isClassSpecific(here.index, state.method) ? "" : state.target ? ` An image without a map for ${state.target} shows that for its predicted class.` : " Each map is for the class predicted of its own image.";
    const hidden = `${state.hide ? " Sinks are not left out here." : ""}${state.smooth ? ` Maps are ${INTERPOLATED}.` : ""}`;
    const which = state.wrong ? `${count} of ${here.index.images.length} images, those that are predicted wrong` : `All ${count} images`;
    const query = state.query === "pool" ? "pooled row" : `${tokenName(here.index, state.query)} of each image, ${way}`;
    return `${which}, on one scale. Shown: ${describe(here, state)}; query: ${query}.${own}${hidden} Click an image to see it large.`;
  }
}
