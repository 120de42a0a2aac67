// @ts-check
/** The column of controls; on a narrow page it folds into one line. */

import { checkbox, chooser, fillSelect, h, segmented, setAttribute, setText } from "../drawing/dom.js";
import { guideLink } from "../words/guide.js";
import { helpButton } from "../words/help.js";
import { showKeys } from "./keys.js";
import { hasMethod, isByLayer, methodChoices, methodGroups } from "../maps/methods.js";
import { runLabels } from "../words/names.js";
import { regionsOf } from "../maps/regions.js";
import { methodPhrase } from "../words/sentence.js";
import { Share } from "./share.js";
import { TargetChoice } from "./target.js";
import { placeName } from "../maps/view.js";

export class Controls {
  /** @param {import("../page.js").Page} page */
  constructor(page) {
    this.page = page;
    const set = page.store.set.bind(page.store);
    this.run = h("select", { "aria-label": page.source.ofPictures ? "Network" : "Run", onchange: () => set({ run: this.run.value, step: -1 }) });
    this.method = chooser("Method", (method) => set({ method }));
    this.layer = h("select", { "aria-label": "Layer", onchange: () => set({ layer: Number(this.layer.value) }) });
    this.head = h("select", { "aria-label": "Head or fusion of heads", onchange: () => set({ head: headValue(this.head.value) }) });
    this.direction = segmented("Direction", [["from", "attends to"], ["to", "attended by"]], (direction) => set({ direction: /** @type {any} */ (direction) }));
    this.hide = checkbox("Leave out prefix and sinks", (hide) => set({ hide }), "The notes below state how much this hides");
    this.groundTruth = checkbox("Mark ground truth", (groundTruth) => set({ groundTruth }), "Regions that the data set knows, the answer region solid, others dashed");
    this.lines = checkbox("Grid lines", (grid) => set({ grid }));
    this.opacity = h("input", { type: "range", min: 0, max: 1, step: 0.05, "aria-label": "Opacity of the map over the image", oninput: () => set({ opacity: this.opacity.valueAsNumber }) });
    this.pin = h("button", { type: "button", onclick: () => this.togglePin() });
    this.pinned = h("p", { class: "hint" });
    this.theme = h("select", { "aria-label": "Light or dark", onchange: () => set({ theme: /** @type {any} */ (this.theme.value) }) },
      h("option", { value: "auto" }, "auto"), h("option", { value: "light" }, "light"), h("option", { value: "dark" }, "dark"));
    this.layerLabel = h("span", {}, "Layer");
    this.smooth = checkbox("Smooth (interpolate)", (smooth) => set({ smooth }), "Interpolate between patch centres; the figure and the saved picture say so");
    this.target = page.extras.target ?? new TargetChoice(page);
    this.share = new Share(page);
    this.summary = h("span", { class: "now" });
    this.element = this.build();
  }

  build() {
    this.compare = field("Compare", "compare", ...(this.page.extras.compare ? [this.page.extras.compare.element] : []), this.pin, this.pinned);
    this.live = h("div", { class: "live", hidden: true },
      field("Method", "method", this.method.element),
      this.target.element,
      h("div", { class: "pair" }, field(this.layerLabel, "layer", this.layer), field("Heads", "fusion", this.head)),
      field("Query", "query", this.direction.element),
      h("div", { class: "field checks" },
        h("div", { class: "with-help" }, this.hide.element, helpButton("sinks")),
        h("div", { class: "with-help" }, this.groundTruth.element, helpButton("truth")),
        this.lines.element, this.smooth.element),
      field("Map over image", "", this.opacity),
      this.compare,
      field("Share and save", "", this.share.element),
    );
    this.fold = h("details", { open: true },
      h("summary", {}, h("b", {}, "Controls"), " ", this.summary),
      h("div", { class: "fields" },
        field(this.page.source.ofPictures ? "Network" : "Run", "", this.run),
        this.live,
        h("div", { class: "field foot" },
          h("button", { type: "button", onclick: () => showKeys(this.page) }, "Keys"),
          guideLink(this.page.source),
          this.theme,
        )),
    );
    return h("aside", { class: "side", "aria-label": "Controls" }, this.fold);
  }

  togglePin() {
    const { state, store, here } = this.page;
    if (here) store.set({ pin: state.pin ? null : { ...here.place } });
  }

  nextMethod() {
    const { here, state, store } = this.page;
    if (!here) return;
    const names = methodChoices(here.index).map(([name]) => name).filter((name) => hasMethod(here.index, name));
    store.set({ method: names[(names.indexOf(state.method) + 1) % names.length] });
  }

  draw() {
    const { runs, here, state } = this.page;
    const labels = runLabels(runs.map(({ name }) => name));
    fillSelect(this.run, runs.map(({ name, problem }, i) => ({ value: name, text: problem ? `${labels[i]} (${problem})` : labels[i], title: name })), state.run);
    setAttribute(this.run, "title", state.run);
    this.run.disabled = !runs.length;
    if (this.live) this.live.hidden = !here;
    if (!here) return;
    setText(this.summary, `${methodPhrase(here.index, state.method)} · ${labels[runs.findIndex(({ name }) => name === state.run)] ?? state.run}`);
    this.method.update(methodGroups(here.index), state.method, (name) => hasMethod(here.index, name) || state.method === name);
    setAttribute(this.method.element, "title", hasMethod(here.index, "relevance") ? "" : here.index.ofPictures ? "This network has no relevance" : "No relevance was logged for this step");
    this.drawLayers(here);
    this.direction.update(state.query === "pool" ? "from" : state.direction, (way) => way === "from" || state.query !== "pool");
    setAttribute(this.direction.element, "title", state.query === "pool" ? "No token attends to the pooled row: choose a token" : "");
    this.hide.input.checked = state.hide;
    this.groundTruth.input.checked = state.groundTruth;
    /** @type {HTMLElement} */ (this.groundTruth.element.parentElement).hidden = !regionsOf(here.about).length;
    this.lines.input.checked = state.grid;
    this.smooth.input.checked = state.smooth;
    this.target.draw();
    this.share.draw();
    this.opacity.valueAsNumber = state.opacity;
    setText(this.pin, state.pin ? "Unpin A" : "Pin this as A");
    const { pinned } = this.page;
    setText(this.pinned, state.pin ? `A: ${placeName(pinned ?? { place: state.pin, index: here.index.ofPictures ? here.index : undefined })}` : whatToCompare(here.index));
    this.page.extras.compare?.draw();
    if (this.compare) this.compare.hidden = Boolean(here.index.ofPictures && !here.index.asks && here.index.images.length === 1 && !state.pin); // one map and nothing beside it
    this.theme.value = state.theme;
  }

  /** @param {import("../maps/view.js").Maps} here */
  drawLayers(here) {
    const { state } = this.page;
    setText(this.layerLabel, state.method === "rollout" ? "Up to layer" : "Layer");
    const layers = here.index.layers.map((_, i) => ({ value: String(i), text: String(i + 1) }));
    fillSelect(this.layer, layers, String(here.layerOf(state)));
    this.layer.disabled = this.head.disabled = !isByLayer(state.method);
    const heads = state.method === "raw" ? here.index.heads[here.layerOf(state)] : 0;
    const single = Array.from({ length: heads }, (_, i) => ({ value: String(i), text: `head ${i + 1}` }));
    const fusions = ["mean", "max", "min"].map((value) => ({ value, text: `${value} of all` }));
    fillSelect(this.head, [...fusions, ...single], String(here.headOf(state)));
  }
}

/** What can be compared with what is pinned. @param {import("../maps/view.js").Index} index */
function whatToCompare({ asks, ofPictures }) {
  if (asks) return "Then cut, or go to another picture or network.";
  return ofPictures ? "Then go to another picture." : "Then go to another step, or to another run of the same images.";
}

/** A control under its label, with help on a term. @param {string | Node} label @param {string} term of terms.js; "" for none @param {Node[]} inside */
export function field(label, term, ...inside) {
  return h("div", { class: "field" }, h("div", { class: "label" }, h("span", {}, label), ...(term ? [helpButton(term)] : [])), ...inside);
}

/** @param {string} value @returns {import("../maps/arithmetic.js").Head} */
function headValue(value) {
  return /^\d+$/.test(value) ? Number(value) : /** @type {"mean" | "max" | "min"} */ (value);
}
