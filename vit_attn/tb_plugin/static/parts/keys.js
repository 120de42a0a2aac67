// @ts-check
/** Keys that work everywhere on the page, and their list. */

import { h } from "../drawing/dom.js";
import { nextImage } from "../maps/predictions.js";
import { savePicture } from "../saving/save.js";

/** @type {[string, string, (page: import("../page.js").Page) => void][]} key, what it does, how */
const KEYS = [
  [",", "previous step", (page) => page.timeline?.go(page.timeline.position - 1)],
  [".", "next step", (page) => page.timeline?.go(page.timeline.position + 1)],
  ["p", "play or pause", (page) => page.timeline?.toggle()],
  ["j", "next image", (page) => moveImage(page, 1)],
  ["k", "previous image", (page) => moveImage(page, -1)],
  ["m", "next method", (page) => page.controls?.nextMethod()],
  ["[", "layer below", (page) => moveLayer(page, -1)],
  ["]", "layer above", (page) => moveLayer(page, 1)],
  ["h", "next head, then mean, max, min", (page) => moveHead(page)],
  ["d", "attends to, or attended by", (page) => page.store.set({ direction: page.state.direction === "from" ? "to" : "from" })],
  ["x", "leave out prefix and sinks", (page) => page.store.set({ hide: !page.state.hide })],
  ["a", "mark the ground truth", (page) => page.store.set({ groundTruth: !page.state.groundTruth })],
  ["q", "back to the pooled row", (page) => page.store.set({ query: "pool" })],
  ["c", "compare: pin as A, or unpin", (page) => page.controls?.togglePin()],
  ["v", "next of the further views, then none", (page) => page.research?.next()],
  ["t", "next class that the map is for", (page) => page.controls?.target.next()],
  ["i", "smooth: interpolate between patches", (page) => page.store.set({ smooth: !page.state.smooth })],
  ["w", "wrong predictions only", (page) => page.store.set({ wrong: !page.state.wrong })],
  ["l", "copy a link to this view", (page) => page.controls?.share.copy()],
  ["s", "save the view as PNG", savePicture],
  ["Escape", "close the enlarged head", (page) => page.sheet?.enlarged.close()],
  ["?", "these keys", (page) => showKeys(page)],
];
/** Keys for what only a training has: steps, labels, ground truth. */
const OF_TRAINING = new Set([",", ".", "p", "a", "w"]);

/** Whether a key does nothing on this page. @param {import("../page.js").Page} page @param {string} key */
function isIdle(page, key) {
  return (page.source.ofPictures && OF_TRAINING.has(key)) || (key === "l" && !page.address?.linkable);
}

/** @param {import("../page.js").Page} page @param {KeyboardEvent} event */
export function onKey(page, event) {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest("dialog, select, input:not([type=range], [type=checkbox])")) return;
  const entry = KEYS.find(([key]) => key === event.key);
  if (!entry || isIdle(page, entry[0]) || (!page.here && event.key !== "?")) return;
  event.preventDefault();
  entry[2](page);
}

/** @param {import("../page.js").Page} page @param {number} by */
function moveImage(page, by) {
  if (page.here) page.store.set({ image: nextImage(page.here.index, page.state.wrong, page.state.image, by) });
}

/** @param {import("../page.js").Page} page @param {number} by */
function moveLayer({ here, state, store }, by) {
  if (here) store.set({ layer: Math.min(here.layers.length - 1, Math.max(0, here.layerOf(state) + by)) });
}

/** @param {import("../page.js").Page} page */
function moveHead({ here, state, store }) {
  if (!here) return;
  const heads = state.method === "raw" ? here.index.heads[here.layerOf(state)] : 0;
  /** @type {import("../maps/arithmetic.js").Head[]} */
  const all = [...Array(heads).keys(), "mean", "max", "min"];
  store.set({ head: all[(all.indexOf(here.headOf(state)) + 1) % all.length] });
}

/** A list of all keys in a dialog. @param {import("../page.js").Page} page */
export function showKeys(page) {
  const entry = (/** @type {string} */ key, /** @type {string} */ does) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, does)];
  const rows = KEYS.filter(([key]) => !isIdle(page, key)).flatMap(([key, does]) => entry(key, does));
  const inside = [
    ...entry("arrows", "on the image, the matrix and the sheet: move"),
    ...entry("Enter", "there: make it the query, or choose the head"),
  ];
  const dialog = h("dialog", { class: "keys", "aria-label": "Keys", onclose: () => dialog.remove() },
    h("h2", {}, "Keys"), h("dl", {}, ...rows, ...inside), h("form", { method: "dialog" }, h("button", {}, "Close")));
  document.body.append(dialog);
  dialog.showModal();
}
