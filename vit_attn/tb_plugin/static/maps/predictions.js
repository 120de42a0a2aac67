// @ts-check
/** Right and wrong predictions of the probe images. No DOM in here. */

import { probability } from "./colour.js";

/** @typedef {import("./view.js").Index} Index */
/** @typedef {Pick<import("./view.js").About, "label" | "top" | "right">} About */

/** Positions of the images that a filter leaves, and of the chosen one. @param {Index} index @param {boolean} wrong only those that are predicted wrong @param {number} chosen -1 if none need be kept */
export function shownImages(index, wrong, chosen) {
  return [...index.images.keys()].filter((image) => !wrong || index.images[image].right === false || image === chosen);
}

/** The next image that a filter leaves, in a circle. @param {Index} index @param {boolean} wrong @param {number} chosen @param {number} by 1 or −1 */
export function nextImage(index, wrong, chosen, by) {
  const shown = shownImages(index, wrong, chosen);
  return shown[(shown.indexOf(Math.min(chosen, index.images.length - 1)) + by + shown.length) % shown.length];
}

/** @param {Index} index */
export function wrongCount(index) {
  return index.images.filter(({ right }) => right === false).length;
}

/** Whether it is known of any image which class it is of. @param {Index} index */
export function isLabelled(index) {
  return index.images.some(({ right }) => typeof right === "boolean");
}

/** The predicted class; "" for a network without classes, or before it has looked. @param {About} about */
export function predictedClass({ top }) {
  return top[0]?.[0] ?? "";
}

/** Prediction in a few letters. @param {About} about */
export function predictionOf({ top, right }) {
  if (!top.length) return "";
  const [best, chance] = top[0];
  return `${right ? "✓" : right === false ? `✗ ${best}` : best} ${probability(chance)}`;
}

/** Label and prediction of an image, as a title says them. @param {About} about */
export function predictionPhrase({ label, top, right }) {
  const [best, chance] = top[0] ?? ["", null];
  const sign = right ? " ✓" : right === false ? " ✗" : "";
  return [label === null ? "" : `true label ${label}`, best && `predicted ${best}${sign} ${probability(chance)}`].filter(Boolean).join(", ");
}
