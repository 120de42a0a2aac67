// @ts-check
/** The class that a class-specific map is for, chosen from a list. */

import { h, setAttribute, setText, syncChildren } from "../drawing/dom.js";
import { isClassSpecific, isHereWords, targetChoices } from "../maps/methods.js";
import { predictedClass } from "../maps/predictions.js";

export class TargetChoice {
  /** @param {import("../page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.select = h("select", { "aria-label": "Class that the map is for", onchange: () => page.store.set({ target: this.select.value }) });
    this.hint = h("p", { class: "hint" });
    this.element = h("div", { class: "field" }, h("span", { class: "label" }, "For the class"), this.select, this.hint);
  }

  /** Choose the next class of the list. */
  next() {
    const { options, selectedIndex } = this.select;
    if (this.element.hidden || !options.length) return;
    this.page.store.set({ target: options[(selectedIndex + 1) % options.length].value });
  }

  draw() {
    const { here, state } = this.page;
    if (!here) return;
    this.element.hidden = !isClassSpecific(here.index, state.method);
    if (this.element.hidden) return;
    const { about, index } = here;
    const choices = targetChoices(index, about, state.method);
    const roles = (/** @type {string} */ name) => [name === predictedClass(about) ? "predicted" : "", name === about.label ? "true label" : ""].filter(Boolean).join(", ");
    const options = choices.map((name, i) => ({ value: i ? name : "", text: roles(name) ? `${name} (${roles(name)})` : name }));
    syncChildren(this.select, options, () => h("option"), (option, { value, text }) => {
      option.value = value;
      setText(option, text);
    });
    this.select.value = state.target;
    this.select.disabled = choices.length < 2;
    setText(this.hint, choices.length < 2 ? otherClassWords(here) : "");
    this.hint.hidden = choices.length > 1;
    setAttribute(this.select, "title", "Relevance and other class-specific maps show what speaks for this class");
  }
}

/** Why there is one class only. @param {import("../maps/view.js").Maps} maps */
function otherClassWords({ about, index }) {
  return about.targets ? `No other class ${isHereWords(index)} for this method.` : "Other classes were not logged in this run.";
}
