// @ts-check
/** The head that was clicked, large, below its row of the sheet: the map stays where the eye is. */

import { measureText } from "./cell.js";
import { format } from "../maps/colour.js";
import { h, setText } from "../drawing/dom.js";
import { Figure } from "./figure.js";
import { helpButton } from "../words/help.js";
import { methodPhrase, sentenceOf } from "../words/sentence.js";
import { tokenName } from "../maps/view.js";

export class Enlarged {
  /** @param {import("../page.js").Page} page */
  constructor(page) {
    this.page = page;
    /** @type {import("./cell.js").Cell | undefined} */
    this.cell = undefined;
    this.opened = false;
    this.before = "raw"; // the method before the first click, to go back to
    this.figures = [new Figure(page, "Head of A"), new Figure(page, "Head")];
    this.title = h("h3");
    this.sentence = h("p");
    this.measures = ["entropy", "distance", "sink"].map((name) => ({ name: /** @type {"entropy" | "distance" | "sink"} */ (name), text: h("dd") }));
    this.back = h("button", { type: "button", onclick: () => page.store.set({ method: this.before }) });
    const close = h("button", { type: "button", onclick: () => this.close() }, "Close");
    const names = { entropy: "entropy", distance: "distance", sink: "largest fraction" };
    const list = this.measures.flatMap(({ name, text }) => [h("dt", {}, names[name], helpButton(name)), text]);
    this.element = h("section", { class: "enlarged", "aria-label": "Chosen head", hidden: true },
      ...this.figures.map(({ element }) => element), h("div", { class: "about" }, this.title, this.sentence, h("p", { class: "detail" }, "Of the whole head, means over all queries of this image:"), h("dl", {}, ...list), h("p", { class: "actions" }, this.back, close)));
  }

  /** @param {string} before method that was shown */
  open(before) {
    this.opened = true;
    if (before !== "raw") this.before = before;
  }

  close() {
    if (!this.opened) return;
    this.opened = false;
    this.page.sheet?.draw();
    /** @type {HTMLElement | null} */ (this.page.sheet?.buttons.querySelector("[aria-pressed=true]"))?.focus();
  }

  /** @param {import("./cell.js").Cell | undefined} cell the chosen head; none where a fusion or another method is shown */
  draw(cell) {
    const { here, pinned, stage, state } = this.page;
    this.cell = cell;
    this.opened = this.opened && Boolean(cell);
    this.element.hidden = !this.opened;
    if (!this.opened) this.before = "raw";
    if (!this.opened || !cell || !here || !stage) return;
    setText(this.title, `Layer ${cell.layer + 1}, head ${cell.head + 1}`);
    setText(this.sentence, sentenceOf(here, state));
    for (const { name, text } of this.measures) setText(text, `${measureText(name, cell.measures)}${name === "entropy" ? `, ${format(cell.measures.normalisedEntropy, true)} of ln N` : name === "sink" ? `, on ${tokenName(here.index, cell.measures.sinkToken)}` : ""}`);
    this.back.hidden = this.before === "raw";
    setText(this.back, `Back to ${methodPhrase(here.index, this.before)}`);
    const [a, b] = this.figures;
    a.element.hidden = !pinned;
    if (pinned) a.draw({ maps: pinned, title: "A", detail: "", shown: stage.shownA, scale: stage.shownA && stage.scale, missing: stage.shownA ? "" : "A cannot be shown." });
    b.draw({ maps: here, title: pinned ? "B" : "Map", detail: "", shown: stage.shown, scale: stage.shown && stage.scale });
    stage.drawMarks();
  }
}
