// @ts-check
/** The class that a map is for, searched among all classes of a network: a combobox, as ARIA has it. */

import { probability } from "../maps/colour.js";
import { h, setAttribute, setText, syncChildren } from "../drawing/dom.js";
import { helpButton } from "../words/help.js";
import { isClassSpecific } from "../maps/methods.js";
import { predictedClass } from "../maps/predictions.js";
import { findClasses } from "./search.js";

/** Classes that the list shows; more are not read, and a text finds them. */
const MOST_OPTIONS = 60;

export class TargetSearch {
  /** @param {import("../page.js").Page} page @param {() => number[] | null} probabilities of all classes, where they are known */
  constructor(page, probabilities) {
    this.page = page;
    this.probabilities = probabilities;
    this.active = -1;
    /** @type {import("./search.js").Candidate[]} */
    this.found = [];
    this.input = h("input", { type: "text", role: "combobox", autocomplete: "off", spellcheck: "false", "aria-label": "Class that the map is for", "aria-autocomplete": "list", "aria-expanded": false, "aria-controls": "classes-found",
      onfocus: () => this.open(), onclick: () => this.open(), oninput: () => this.open(this.input.value), onblur: () => this.close(), onkeydown: (/** @type {KeyboardEvent} */ event) => this.key(event) });
    this.list = h("ul", { role: "listbox", id: "classes-found", "aria-label": "Classes" });
    this.count = h("p", { class: "hint", role: "status" });
    this.popup = h("div", { class: "found", hidden: true, onpointerdown: (/** @type {Event} */ event) => event.preventDefault() }, this.list, this.count);
    this.clear = h("button", { type: "button", title: "Back to the predicted class", "aria-label": "Back to the predicted class", onclick: () => page.store.set({ target: "" }) }, "✕");
    this.element = h("div", { class: "field" }, h("div", { class: "label" }, h("span", {}, "For the class"), helpButton("target")), h("div", { class: "search" }, this.input, this.clear, this.popup));
  }

  /** Choose the next of the top classes. */
  next() {
    const { here, store } = this.page;
    if (!here || this.element.hidden || !here.about.top.length) return;
    const names = here.about.top.map(([name]) => name);
    const next = (names.indexOf(store.state.target || names[0]) + 1) % names.length;
    store.set({ target: next ? names[next] : "" });
  }

  /** @param {string} [text] that is searched for; all classes where there is none */
  open(text = "") {
    const { here } = this.page;
    if (!here) return;
    this.found = findClasses(here.index.classes ?? [], this.probabilities(), text);
    this.active = text ? 0 : -1;
    if (!text) this.input.select();
    this.popup.hidden = false;
    this.drawList();
  }

  close() {
    this.popup.hidden = true;
    setAttribute(this.input, "aria-expanded", false);
    setAttribute(this.input, "aria-activedescendant", null);
    this.draw();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    event.stopPropagation(); // no key of the page while a name is written
    if (by) {
      if (this.popup.hidden) this.open();
      else this.active = Math.min(Math.min(this.found.length, MOST_OPTIONS) - 1, Math.max(0, this.active + by));
      this.drawList();
    } else if (event.key === "Enter") {
      const chosen = this.found[this.active];
      if (chosen && !this.popup.hidden) this.choose(chosen.name);
    } else if (event.key === "Escape" && !this.popup.hidden) {
      this.close();
    } else return;
    event.preventDefault();
  }

  /** @param {string} name */
  choose(name) {
    const { here, store } = this.page;
    this.popup.hidden = true;
    store.set({ target: here && name === predictedClass(here.about) ? "" : name });
    this.close();
  }

  drawList() {
    const shown = this.found.slice(0, MOST_OPTIONS);
    syncChildren(this.list, shown, (i) => h("li", { role: "option", id: `class-found-${i}` }, h("span", { class: "name" }), h("span", { class: "chance" })), (option, { name, probability: chance }, i) => {
      setText(option.children[0], name);
      setText(option.children[1], chance === null ? "" : probability(chance));
      setAttribute(option, "aria-selected", i === this.active);
      option.onclick = () => this.choose(name);
    });
    const more = this.found.length - shown.length;
    setText(this.count, !this.found.length ? "No class has this name." : more > 0 ? `${more} more: write a part of the name.` : "");
    this.count.hidden = !this.count.textContent;
    this.list.hidden = !shown.length;
    setAttribute(this.input, "aria-expanded", !this.popup.hidden);
    setAttribute(this.input, "aria-activedescendant", this.active >= 0 && this.active < shown.length ? `class-found-${this.active}` : null);
    this.list.children[this.active]?.scrollIntoView({ block: "nearest" });
  }

  draw() {
    const { here, state } = this.page;
    if (!here) return;
    this.element.hidden = !isClassSpecific(here.index, state.method) || !here.about.top.length;
    const predicted = predictedClass(here.about);
    this.clear.hidden = !state.target;
    if (this.popup.hidden) this.input.value = state.target || `${predicted} (predicted)`;
  }
}
