// @ts-check
/** Training steps: a slider, play, and whether new steps are followed. */

import { checkbox, h, setAttribute, setText } from "../drawing/dom.js";

const FRAME_MS = 600;

export class Timeline {
  /** @param {import("../page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.playing = false;
    this.button = h("button", { type: "button", class: "play", onclick: () => this.toggle() });
    this.slider = h("input", { type: "range", min: 0, step: 1, "aria-label": "Training step", oninput: () => this.go(this.slider.valueAsNumber) });
    this.text = h("output", { class: "number" });
    this.follow = checkbox("follow", (follow) => page.store.set(follow ? { follow, step: page.steps[page.steps.length - 1] } : { follow }), "Go to new steps as they are logged");
    const parts = [this.button, this.slider, this.text, ...(page.source.live ? [this.follow.element] : [])];
    this.element = h("div", { class: "timeline", hidden: page.source.ofPictures }, ...parts);
  }

  get position() {
    return this.page.steps.indexOf(this.page.state.step);
  }

  /** @param {number} position */
  go(position) {
    const { steps, store } = this.page;
    if (!(position in steps)) return;
    store.set({ step: steps[position], ...(position < steps.length - 1 ? { follow: false } : {}) });
  }

  toggle() {
    this.playing = !this.playing;
    this.draw();
    if (this.playing) this.play();
  }

  /** One step after another, each shown before the next; from the start again when it stands at the end. */
  async play() {
    const { page } = this;
    let position = this.position >= page.steps.length - 1 ? 0 : this.position + 1;
    for (; this.playing && position < page.steps.length; position++) {
      const wait = new Promise((resolve) => setTimeout(resolve, FRAME_MS));
      this.go(position);
      await wait;
      while (page.root?.getAttribute("aria-busy") === "true") await new Promise((resolve) => setTimeout(resolve, 50));
      position = this.position;
    }
    this.playing = false;
    this.draw();
  }

  draw() {
    const { steps, state } = this.page;
    setText(this.button, this.playing ? "❚❚" : "▶\ufe0e");
    setAttribute(this.button, "aria-label", this.playing ? "Pause" : "Play the steps");
    this.slider.max = String(Math.max(0, steps.length - 1));
    this.slider.value = String(this.position);
    setAttribute(this.slider, "aria-valuetext", `step ${state.step}, ${this.position + 1} of ${steps.length}`);
    setText(this.text, `step ${state.step.toLocaleString("en")} · ${this.position + 1}/${steps.length}`);
    this.follow.input.checked = state.follow;
  }
}
