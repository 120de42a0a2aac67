// @ts-check
/** Right and wrong predictions of the probe images. No DOM in here. */

import { probability } from "./colour.js";

/** @typedef {import("./view.js").Index} Index */

/** Positions of the images that a filter leaves, and of the chosen one. @param {Index} index @param {boolean} wrong only those that are predicted wrong @param {number} chosen -1 if none need be kept */
export function shownImages(index, wrong, chosen) {
  return [...index.images.keys()].filter((image) => !wrong || !index.images[image].right || image === chosen);
}

/** The next image that a filter leaves, in a circle. @param {Index} index @param {boolean} wrong @param {number} chosen @param {number} by 1 or −1 */
export function nextImage(index, wrong, chosen, by) {
  const shown = shownImages(index, wrong, chosen);
  return shown[(shown.indexOf(Math.min(chosen, index.images.length - 1)) + by + shown.length) % shown.length];
}

/** @param {Index} index */
export function wrongCount(index) {
  return index.images.filter(({ right }) => !right).length;
}

/** Prediction in a few letters. @param {import("./view.js").About} about */
export function predictionOf({ top, right }) {
  const [best, chance] = top[0];
  return `${right ? "✓" : `✗ ${best}`} ${probability(chance)}`;
}
