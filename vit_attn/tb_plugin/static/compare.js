// @ts-check
/** Whether two sides can be subtracted, and their difference. No DOM in here. */

import { format, scaleAround } from "./colour.js";
import { difference } from "./view.js";

/** @typedef {import("./view.js").Maps} Maps */
/** @typedef {import("./view.js").Shown} Shown */
/** @typedef {import("./state.js").State} State */
/** @typedef {{change: Shown | null, scale: import("./colour.js").Scale | null, said: string}} Comparison */

/** Each side is exact to 0.4 % of its row's largest value: what two can differ by without being different. */
export const RESOLUTION = 0.008;
/** The scale of a difference reaches this share of the largest value shown, at least. */
export const LEAST = 0.01;

/** Why B and A cannot be subtracted, or nothing. @param {Maps} a @param {Maps} b @param {State} state */
export function whyNot(a, b, state) {
  const same = sameImage(a, b);
  if (same === null) return "whether they are the same image was not logged";
  if (!same) return "they are different images";
  if (!sameTokens(a, b)) return `they have other tokens: ${tokensOf(a)} in A, ${tokensOf(b)} in B`;
  if (a.about.label !== b.about.label) return `they have other classes: the image is ${a.about.label} in A, ${b.about.label} in B`;
  if (state.query === "pool" && !samePool(a, b)) return "what the network pools is not the same: choose a token";
  const [targetA, targetB] = [a.about.top[0][0], b.about.top[0][0]];
  if (state.method === "relevance") return targetA === targetB ? "" : `relevance is of other classes: ${targetA} in A, ${targetB} in B`;
  return otherPlace(a, b, state);
}

/** Whether both show the same pixels; `null` where an older log does not say. @param {Maps} a @param {Maps} b @returns {boolean | null} */
export function sameImage(a, b) {
  if (a.about.picture && b.about.picture) return a.about.picture === b.about.picture;
  return a.place.run === b.place.run ? a.place.image === b.place.image : null;
}

/** Whether tokens of both are the same patches and the same prefix. @param {Maps} a @param {Maps} b */
export function sameTokens(a, b) {
  return a.grid.rows === b.grid.rows && a.grid.cols === b.grid.cols && a.index.prefix.join() === b.index.prefix.join();
}

/** @param {Maps} maps */
function tokensOf({ grid, index }) {
  return [...index.prefix, `${grid.rows} × ${grid.cols} patches`].join(", ");
}

/** Whether both pool the same tokens; a pool by attention weighs them anew at each step. @param {Maps} a @param {Maps} b */
function samePool(a, b) {
  const anew = [a, b].map(({ about }) => Boolean(about.pooled || about.pooled_relevance));
  if (anew.some(Boolean)) return anew.every(Boolean);
  return a.index.pooled.join() === b.index.pooled.join();
}

/** A layer or head that only one of them has; the last layer of each is asked for as such. @param {Maps} a @param {Maps} b @param {State} state */
function otherPlace(a, b, state) {
  const [layerA, layerB] = [a.layerOf(state), b.layerOf(state)];
  if (layerA !== layerB && state.layer >= 0) return `layer ${layerA + 1} is shown of A, layer ${layerB + 1} of B`;
  const [headA, headB] = [a.headOf(state), b.headOf(state)].map((head) => (typeof head === "number" ? `head ${head + 1}` : `the ${head} of heads`));
  return headA === headB ? "" : `${headA} is shown of A, ${headB} of B`;
}

/** B minus A on a scale from its own values, or why there is none. @param {Maps} a @param {Maps} b @param {Shown | null} shownA @param {Shown | null} shownB @param {State} state @returns {Comparison} */
export function compare(a, b, shownA, shownB, state) {
  const reason = whyNot(a, b, state);
  const change = !reason && shownA && shownB ? difference(shownA, shownB) : null;
  if (!change || !shownA || !shownB) return { change: null, scale: null, said: `not drawn: ${reason || "one of the two cannot be shown"}` };
  const percent = state.method !== "relevance";
  const most = Math.max(shownA.max, shownB.max);
  const scale = scaleAround(change.max, percent, LEAST * most);
  if (change.max > RESOLUTION * most) return { change, scale, said: "red: more in B" };
  const least = change.max > 0 ? `: less than ${format(RESOLUTION * most, percent)}, which 8 bits cannot tell` : "";
  return { change, scale, said: `no difference${least}` };
}
