// @ts-check
/** The first line of the page: what is seen, and what to do next. */

import { h, setText } from "../drawing/dom.js";
import { helpButton, setTerm } from "../words/help.js";
import { invitation, methodPhrase, sentenceOf, sentenceOfBoth } from "../words/sentence.js";
import { termOf } from "../words/terms.js";

export class Lead {
  /** @param {import("../page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.sentence = h("h1", { "aria-live": "polite" }, "Attention maps");
    this.next = h("span");
    this.about = helpButton("method", "method");
    this.element = h("header", { class: "lead" }, this.sentence, h("p", {}, this.next, " ", this.about, helpButton("pooled", "pooled row"), helpButton("patch", "patch")));
  }

  draw() {
    const { here, pinned, stage, state } = this.page;
    if (!here) return;
    const sentence = sentenceOf(here, state);
    const ofA = pinned && stage?.shownA && sentenceOf(pinned, { ...state, query: stage.queryIn(pinned) });
    setText(this.sentence, !stage?.shown ? "This map cannot be shown here." : ofA ? sentenceOfBoth(ofA, sentence, here.index.ofPictures) : sentence);
    setText(this.next, invitation(here, state));
    setTerm(this.about, termOf(state.method), methodPhrase(here.index, state.method));
  }
}
