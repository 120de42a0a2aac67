// @ts-check
/** What the cuts did: the watched class in a line, and the top classes before and after as bars. */

import { probability } from "../maps/colour.js";
import { h, setAttribute, setText, syncChildren } from "../drawing/dom.js";
import { helpButton } from "../words/help.js";
import { barClasses, changeOf, logitText, signed, watchedClass } from "./cuts.js";

/** @typedef {import("./cuts.js").Reply} Reply */

export class CutOutcome {
  constructor() {
    this.logit = h("p", { class: "watched" });
    this.chance = h("p", { class: "watched" });
    this.rows = h("tbody");
    const column = (/** @type {string} */ name) => h("th", { scope: "col" }, name);
    this.table = h("table", { class: "outcome" }, h("caption", { class: "unseen" }, "Probability of classes before and after the cuts"), h("thead", {}, h("tr", {}, column("class"), column("before"), column("after"))), this.rows);
    this.name = h("b");
    this.element = h("div", { class: "cut-outcome" }, h("p", { class: "with-help" }, this.name, helpButton("logit", "logit"), helpButton("probability", "probability")), this.logit, this.chance, this.table);
  }

  /** @param {Reply | null} reply @param {string[]} classes @param {string} chosen class, "" for the predicted one @returns {string} the same in a sentence */
  draw(reply, classes, chosen) {
    this.element.hidden = !reply;
    if (!reply) return "";
    const target = watchedClass(reply.before, classes, chosen);
    const name = classes[target] ?? `class ${target}`;
    const { logit, probability: chance } = changeOf(reply, target);
    const logits = `${logitText(logit.before)} → ${logitText(logit.after)} (${signed(logit.change)})`;
    const chances = `${probability(chance.before)} → ${probability(chance.after)} (${signed(100 * chance.change, 1)} points)`;
    setText(this.name, name);
    setText(this.logit, `logit ${logits}`);
    setText(this.chance, `probability ${chances}`);
    for (const [element, value] of /** @type {[HTMLElement, number][]} */ ([[this.logit, logit.after], [this.chance, chance.after]])) setAttribute(element, "data-after", value);
    syncChildren(this.rows, barClasses(reply, target), () => h("tr", {}, h("th", { scope: "row" }), ...[0, 1].map(() => h("td", {}, h("span", { class: "fill", "aria-hidden": "true" }), h("span", { class: "chance" })))), (row, index) => {
      setText(row.children[0], classes[index] ?? `class ${index}`);
      row.className = index === target ? "target" : "";
      [reply.before, reply.after].forEach(({ probabilities }, i) => {
        const [fill, text] = /** @type {HTMLCollectionOf<HTMLElement>} */ (row.children[i + 1].children);
        fill.style.width = `${100 * probabilities[index]}%`;
        setText(text, probability(probabilities[index]));
      });
    });
    return `${name}: logit ${logits}, probability ${chances}.`;
  }
}
