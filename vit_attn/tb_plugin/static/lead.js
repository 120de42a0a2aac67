// @ts-check
/** The first line of the page: what is seen, and what to do next. */

import { h, setText } from "./dom.js";
import { helpButton, setTerm } from "./help.js";
import { invitation, methodPhrase, sentenceOf } from "./sentence.js";
import { termOf } from "./terms.js";

export class Lead {
  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.sentence = h("h1", {}, "Attention maps");
    this.next = h("span");
    this.about = helpButton("method", "method");
    this.element = h("header", { class: "lead" }, this.sentence, h("p", {}, this.next, " ", this.about, helpButton("pooled", "pooled row"), helpButton("patch", "patch")));
  }

  draw() {
    const { here, pinned, state } = this.page;
    if (!here) return;
    const shown = this.page.stage?.shown;
    setText(this.sentence, shown ? `${pinned ? "A and B: " : ""}${sentenceOf(here, state)}` : "This map cannot be shown here.");
    setText(this.next, invitation(here, state));
    setTerm(this.about, termOf(state.method), methodPhrase(here.index, state.method));
  }
}
