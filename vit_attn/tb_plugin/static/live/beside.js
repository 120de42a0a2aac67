// @ts-check
/** A second network beside the one that is shown, on the same picture: one click. */

import { h, setAttribute, setText, syncChildren } from "../drawing/dom.js";
import { runLabels } from "../words/names.js";

export class Beside {
  /** @param {import("../page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.list = h("div", { class: "networks", role: "group", "aria-label": "Network beside it" });
    this.swap = h("button", { type: "button", title: "Show A as B, and B as A", onclick: () => this.exchange() }, "Swap A and B");
    page.store.listeners.push((changed) => changed.has("run") && this.keepTwo());
    this.element = h("div", { class: "second" }, h("p", { class: "hint" }, "Another network on this picture:"), this.list, this.swap);
  }

  /** Where the network beside it is chosen as the one that is shown, the two change places. */
  keepTwo() {
    const { here, store } = this.page;
    const { pin, run } = store.state;
    if (here && pin?.run === run && pin.image === here.place.image && here.place.run !== run) this.page.quietly({ pin: { ...here.place } });
  }

  /** Put a network beside the one that is shown, or take it away. @param {string} run */
  toggle(run) {
    const { here, state, store } = this.page;
    if (!here) return;
    const shown = state.pin?.run === run && state.pin.image === here.place.image;
    store.set({ pin: shown ? null : { run, step: 0, image: here.place.image } });
  }

  exchange() {
    const { here, state, store } = this.page;
    if (here && state.pin) store.set({ ...state.pin, pin: { ...here.place } });
  }

  draw() {
    const { here, runs, state } = this.page;
    if (!here) return;
    const labels = runLabels(runs.map(({ name }) => name));
    const others = runs.map(({ name }, i) => ({ name, label: labels[i] })).filter(({ name }) => name !== here.place.run);
    this.element.hidden = !others.length;
    this.swap.hidden = !state.pin || state.pin.run === here.place.run;
    syncChildren(this.list, others, () => h("button", { type: "button" }), (button, { name, label }) => {
      setText(button, label);
      setAttribute(button, "title", name);
      setAttribute(button, "aria-pressed", state.pin?.run === name);
      button.onclick = () => this.toggle(name);
    });
  }
}
