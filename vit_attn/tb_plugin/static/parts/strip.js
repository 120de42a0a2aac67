// @ts-check
/** The probe images, small, with label, prediction, and whether it is right. */

import { probability } from "../maps/colour.js";
import { checkbox, h, setAttribute, setText, syncChildren } from "../drawing/dom.js";
import { isLabelled, nextImage, wrongCount } from "../maps/predictions.js";
import { imageNumber } from "../maps/view.js";

export class Strip {
  /** @param {import("../page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.list = h("div", { class: "strip", role: "radiogroup", "aria-label": page.source.ofPictures ? "Pictures" : "Probe images" });
    this.list.addEventListener("keydown", (event) => this.key(event));
    this.wrong = checkbox("wrong only", (wrong) => page.store.set({ wrong }), "Only images that are predicted wrong, and the chosen one");
    this.counted = this.wrong.element.lastElementChild;
    this.element = h("section", { class: "images strip-box", "aria-label": "Images" }, this.wrong.element, this.list);
    /** @type {Map<string, string>} */
    this.urls = new Map();
  }

  /** URL of a picture; one that was shown at another step is reused. @param {number} image @param {import("../maps/view.js").About} about */
  urlOf(image, { picture }) {
    const { here, source } = this.page;
    if (!here) return "";
    const url = source.imageUrl({ ...here.place, image });
    if (!picture) return url;
    const key = `${here.place.run}/${picture}`;
    if (!this.urls.has(key)) this.urls.set(key, url);
    return this.urls.get(key) ?? url;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const { here, state } = this.page;
    if (!by || !here) return;
    event.preventDefault();
    event.stopPropagation();
    const image = nextImage(here.index, state.wrong, state.image, by);
    /** @type {HTMLElement} */ (this.list.children[image]).focus();
    this.page.store.set({ image });
  }

  draw() {
    const { here, state } = this.page;
    if (!here) return;
    const chosen = here.place.image;
    const wrong = wrongCount(here.index);
    this.wrong.element.hidden = !isLabelled(here.index);
    this.wrong.input.checked = state.wrong;
    this.wrong.input.disabled = !wrong && !state.wrong;
    if (this.counted) setText(this.counted, `wrong only (${wrong} of ${here.index.images.length})`);
    syncChildren(
      this.list,
      here.index.images,
      (image) =>
        h("button", { type: "button", class: "thumb", role: "radio", onclick: () => this.page.store.set({ image }) },
          h("img", { alt: "", loading: "lazy" }), h("span", { class: "name" }), h("span", { class: "guess" }, h("span"), " ", h("span", { class: "chance" }))),
      (button, about, image) => {
        const [picture, name, guess] = button.children;
        const [best, chance] = about.top[0] ?? ["", null];
        const sign = about.right === null ? "" : about.right ? "✓" : "✗";
        const label = about.label === null ? about.name ?? "" : `label: ${about.label}`;
        setAttribute(picture, "src", this.urlOf(image, about));
        setText(name, label);
        setText(guess.children[0], best && (about.label === null ? best : `predicted: ${best}`));
        setText(guess.children[1], best && `${probability(chance)} ${sign}`.trim());
        button.hidden = state.wrong && about.right !== false && image !== chosen;
        guess.classList.toggle("wrong", about.right === false);
        setAttribute(button, "aria-checked", image === chosen);
        const guessed = best && ` predicted: ${best} ${probability(chance)}${sign && ` ${sign}, ${about.right ? "right" : "wrong"}`}`;
        const words = `image ${imageNumber(here.index, image)}, ${label}${guessed}`;
        setAttribute(button, "aria-label", words);
        setAttribute(button, "title", words);
        button.tabIndex = image === chosen ? 0 : -1;
      },
    );
  }
}
