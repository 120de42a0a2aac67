// @ts-check
/** One head's small map as a button, with its measures in words. */

import { format } from "../maps/colour.js";
import { h, setAttribute, setText } from "../drawing/dom.js";
import { tokenName } from "../maps/view.js";

/** @typedef {import("../maps/measures.js").Measures} Measures */
/** @typedef {{layer: number, head: number, measures: Measures}} Cell */

/** Signs of what a head is called, where there is no room for the word. @type {Record<string, string>} */
export const FLAGS = { uniform: "=", concentrated: "●", sink: "▼" };

/** @param {(event: Event) => void} choose */
export function makeCell(choose) {
  return h("button", { type: "button", class: "small", onclick: choose },
    h("span", { class: "maps" }), h("span", { class: "name" }), " ", h("span", { class: "flag" }, h("span", { class: "sign", "aria-hidden": "true" }), h("span", { class: "word" })));
}

/** What a head is called in this image: uniform, concentrated, sink, or nothing. @param {Cell} cell @param {import("../maps/view.js").Maps} here */
export function flagOf({ layer, head, measures }, here) {
  if (measures.uniform) return "uniform";
  return !measures.concentrated ? "" : here.isSink(layer, head, measures.sinkToken) ? "sink" : "concentrated";
}

/** A measure with its unit. @param {"entropy" | "distance" | "sink"} name @param {Measures} measures */
export function measureText(name, measures) {
  return { entropy: `${measures.entropy.toFixed(2)} nats`, distance: `${measures.distance.toFixed(1)} px`, sink: format(measures.sink, true) }[name];
}

/** @param {HTMLElement} button @param {Cell} cell @param {import("../maps/view.js").Maps} here @param {import("../data/state.js").State} state @param {number} highest value of the small map */
export function updateCell(button, cell, here, state, highest) {
  const { layer, head, measures } = cell;
  const flag = flagOf(cell, here);
  const name = `layer ${layer + 1}, head ${head + 1}`;
  const number = state.sort === "network" ? "" : `${{ entropy: "entropy", distance: "distance", sink: "largest" }[state.sort]} ${measureText(state.sort, measures)}`;
  setText(button.children[1], number && `${name}\n${number}`);
  const [sign, word] = button.children[2].children;
  setText(sign, FLAGS[flag] ?? "");
  setText(word, flag);
  button.className = `small ${flag}`;
  button.children[2].className = `flag ${flag}`;
  /** @type {HTMLElement} */ (button.children[2]).hidden = !flag;
  const words = `${name}: ${[number, flag].filter(Boolean).map((part) => `${part}; `).join("")}entropy ${measureText("entropy", measures)}, ${format(measures.normalisedEntropy, true)} of the largest; ` +
    `distance ${measures.distance.toFixed(1)} pixels; largest fraction of its attention ${measureText("sink", measures)}, on ${tokenName(here.index, measures.sinkToken)}; ` +
    `largest value here ${format(highest, true)}`;
  setAttribute(button, "aria-label", words);
  setAttribute(button, "title", words);
  setAttribute(button, "aria-pressed", state.method === "raw" && here.layerOf(state) === layer && here.headOf(state) === head);
}
