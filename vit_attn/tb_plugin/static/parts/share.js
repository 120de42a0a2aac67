// @ts-check
/** Sharing and saving the view: a link, a picture, and its numbers. */

import { checkbox, h, setText } from "../drawing/dom.js";
import { saveCsv, saveNpz, savePicture } from "../saving/save.js";

/** How long "Link copied" stands. */
const SAID_MS = 2500;

export class Share {
  /** @param {import("../page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.link = h("button", { type: "button", hidden: !page.address?.linkable, title: `Opens this ${page.source.ofPictures ? "network, picture" : "run, step, image"}, method, layer, head and query`, onclick: () => this.copy() }, "Copy link");
    this.withSheet = checkbox("with sheet", (withSheet) => page.store.set({ withSheet }), "Draw the small maps of all heads below the figures");
    this.element = h("div", { class: "share", role: "group", "aria-label": "Share and save this view" },
      this.link,
      h("button", { type: "button", onclick: () => savePicture(page) }, "Save PNG"), this.withSheet.element,
      h("button", { type: "button", title: "The numbers shown, one line a token", onclick: () => saveCsv(page) }, "CSV"),
      h("button", { type: "button", title: "The same and the matrix for numpy.load, float32", onclick: () => saveNpz(page) }, "npz"));
  }

  async copy() {
    const said = await this.page.address?.copy();
    setText(this.link, said || "Copy link");
    setTimeout(() => setText(this.link, "Copy link"), SAID_MS);
  }

  draw() {
    this.withSheet.input.checked = this.page.state.withSheet;
  }
}
