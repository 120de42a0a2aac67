// @ts-check
/** Layer and head of a further view: those views show raw attention, whatever method the map above shows. */

import { h, setText, syncChildren } from "../drawing/dom.js";

export class Picker {
  /** @param {import("../page.js").Page} page @param {boolean} withHead */
  constructor(page, withHead) {
    this.page = page;
    this.layer = h("select", { "aria-label": "Layer of this view", onchange: () => page.store.set({ layer: Number(this.layer.value) }) });
    this.head = h("select", { "aria-label": "Head of this view", onchange: () => page.store.set({ head: Number(this.head.value) }) });
    const head = withHead ? [h("label", {}, "Head ", this.head)] : [];
    this.element = h("div", { class: "picker" }, h("label", {}, "Layer ", this.layer), ...head);
  }

  /** The head that is meant: the first one where heads are fused. */
  get chosenHead() {
    const { here, state } = this.page;
    const heads = here?.index.heads[here.layerOf(state)] ?? 1;
    return typeof state.head === "number" && state.head < heads ? state.head : 0;
  }

  draw() {
    const { here, state } = this.page;
    if (!here) return;
    const layer = here.layerOf(state);
    fillNumbers(this.layer, here.index.layers.length, layer);
    fillNumbers(this.head, here.index.heads[layer], this.chosenHead);
  }
}

/** @param {HTMLSelectElement} select @param {number} count @param {number} chosen */
function fillNumbers(select, count, chosen) {
  syncChildren(select, [...Array(count).keys()], () => h("option"), (option, i) => {
    option.value = String(i);
    setText(option, String(i + 1));
  });
  select.value = String(chosen);
}
