// @ts-check
/** The top classes of the network with their probabilities, those of two networks side by side; a click makes one the target. */

import { probability } from "../maps/colour.js";
import { h, setAttribute, setText, syncChildren } from "../drawing/dom.js";
import { helpButton } from "../words/help.js";
import { isClassSpecific } from "../maps/methods.js";
import { predictedClass } from "../maps/predictions.js";
import { methodPhrase } from "../words/sentence.js";
import { otherCrops } from "../maps/compare.js";
import { cutsPhrase } from "../maps/view.js";
import { listedClasses } from "./search.js";

/** @typedef {import("../maps/view.js").Maps} Maps */
/** @typedef {import("../data/live_source.js").Prediction} Prediction */

/** The method for a class, where the one that is shown is the same for every class. */
const FOR_A_CLASS = "relevance";

export class Predictions {
  /** @param {import("../page.js").Page} page @param {import("../data/live_source.js").LiveSource} source */
  constructor(page, source) {
    this.page = page;
    this.source = source;
    /** Of what is shown, as it came. @type {Map<Maps, Prediction>} */
    this.known = new Map();
    this.lists = [this.makeList(), this.makeList()];
    this.crops = h("p", { class: "hint" });
    this.element = h("section", { class: "predictions", "aria-label": "Predictions" }, ...this.lists.map(({ element }) => element), this.crops);
  }

  /** Probabilities of all classes of the network that is shown, where they are known. */
  get probabilities() {
    return (this.page.here && this.known.get(this.page.here)?.probabilities) ?? null;
  }

  makeList() {
    const [side, name] = [h("b", { class: "letter" }), h("span", { class: "network" })];
    const rows = h("div", { class: "top-classes", role: "group", "aria-label": "Top classes" });
    const note = h("p", { class: "hint" });
    return { element: h("div", { class: "prediction" }, h("div", { class: "head" }, h("h2", {}, side, name), helpButton("probability")), rows, note), side, name, rows, note };
  }

  /** Make a class the one that the maps are for. @param {string} name */
  choose(name) {
    const { here, store, state } = this.page;
    if (!here) return;
    const target = name === predictedClass(here.about) ? "" : name;
    if (isClassSpecific(here.index, state.method)) return store.set({ target });
    this.page.say(`The method is now relevance, for the class ${name}; it was ${methodPhrase(here.index, state.method)}.`);
    store.set({ target, method: FOR_A_CLASS });
  }

  /** @returns {[string, Maps][]} */
  get sides() {
    const { here, pinned } = this.page;
    if (!here) return [];
    return pinned ? [["A", pinned], ["B", here]] : [["", here]];
  }

  draw() {
    const { sides } = this;
    for (const maps of this.known.keys()) if (!sides.some(([, shown]) => shown === maps)) this.known.delete(maps);
    this.lists.forEach((list, i) => {
      list.element.hidden = !sides[i];
      if (sides[i]) this.drawList(list, ...sides[i]);
    });
    const other = sides.length === 2 && otherCrops(sides[0][1], sides[1][1]);
    setText(this.crops, other ? "The two networks see other crops of the picture, so a patch of A is not the same place in B." : "");
    this.crops.hidden = !other;
  }

  /** @param {ReturnType<Predictions["makeList"]>} list @param {string} side @param {Maps} maps */
  drawList(list, side, maps) {
    const { about, index, place } = maps;
    const known = this.known.get(maps);
    const target = maps.possible(this.page.store.state).target || predictedClass(about);
    setText(list.side, side && `${side} `);
    setText(list.name, [place.run, cutsPhrase(index)].filter(Boolean).join(", "));
    setAttribute(list.name, "title", place.run);
    const wanted = this.page.store.state.target;
    const rows = listedClasses(about.top, wanted, index.classes ?? [], known?.probabilities ?? null);
    syncChildren(list.rows, rows, () => h("button", { type: "button", class: "class" }, h("span", { class: "fill", "aria-hidden": "true" }), h("span", { class: "name" }), h("span", { class: "chance" })), (button, row) => {
      const [fill, name, chance] = /** @type {HTMLCollectionOf<HTMLElement>} */ (button.children);
      fill.style.width = `${100 * (row.probability ?? 0)}%`;
      setText(name, row.name);
      setText(chance, row.probability === null ? "…" : probability(row.probability));
      setAttribute(button, "aria-pressed", row.name === target);
      setAttribute(button, "title", `${row.name}: show what speaks for it`);
      button.onclick = () => this.choose(row.name);
    });
    setText(list.note, !about.top.length ? "This network has no classes." : known?.note ?? "");
    list.note.hidden = !list.note.textContent;
    if (!known) this.load(maps);
  }

  /** Ask for the numbers of all classes; the page does not wait for them. @param {Maps} maps */
  async load(maps) {
    if (!maps.about.top.length) return;
    try {
      const prediction = await this.source.prediction(maps.place);
      if (!this.sides.some(([, shown]) => shown === maps)) return;
      this.known.set(maps, prediction);
      this.draw();
      this.page.controls?.target.draw();
    } catch {
      // the map and the top classes are here all the same
    }
  }
}
