// @ts-check
/** Whether two sides can be subtracted, and their difference. No DOM in here. */

import { sum } from "./arithmetic.js";
import { format, scaleAround } from "./colour.js";
import { isByLayer, isClassSpecific, methodLabel } from "./methods.js";
import { predictedClass } from "./predictions.js";

/** @typedef {import("./view.js").Maps} Maps */
/** @typedef {import("./view.js").Shown} Shown */
/** @typedef {import("../data/state.js").State} State */
/** @typedef {{change: Shown | null, scale: import("./colour.js").Scale | null, message: string}} Comparison */

/** Each side is exact to 0.4 % of its row's largest value, so two equal maps may differ by this fraction. */
export const RESOLUTION = 0.008;
/** The scale of a difference reaches at least this fraction of the largest value shown. */
export const LEAST = 0.01;

/** Why B and A cannot be subtracted, or nothing. @param {Maps} a @param {Maps} b @param {State} state */
export function obstacleTo(a, b, state) {
  const same = sameImage(a, b);
  if (same === null) return "whether they are the same image was not logged";
  if (!same) return "they are different images";
  if (otherCrops(a, b)) return "the two networks see other crops of the picture";
  if (!sameTokens(a, b)) return `they have other tokens: ${tokensOf(a)} in A, ${tokensOf(b)} in B`;
  if (a.about.label !== b.about.label) return `they have other classes: the image is ${a.about.label} in A, ${b.about.label} in B`;
  if (state.query === "pool" && !samePool(a, b)) return "what the network pools is not the same: choose a token";
  const [targetA, targetB] = [a, b].map((maps) => maps.possible(state).target || predictedClass(maps.about));
  if (isClassSpecific(b.index, state.method) && targetA !== targetB) return `${methodLabel(b.index, state.method)} is of other classes: ${targetA} in A, ${targetB} in B`;
  return isByLayer(state.method) ? otherHead(a, b, state) : "";
}

/** Whether both show the same pixels; `null` where an older log does not say. @param {Maps} a @param {Maps} b @returns {boolean | null} */
export function sameImage(a, b) {
  if (a.about.picture && b.about.picture) return a.about.picture === b.about.picture;
  return a.place.run === b.place.run ? a.place.image === b.place.image : null;
}

/** Whether two networks are known to see other regions of the same picture. @param {Maps} a @param {Maps} b */
export function otherCrops(a, b) {
  return Boolean(a.about.crop && b.about.crop && a.about.crop.join() !== b.about.crop.join());
}

/** Whether tokens of both are the same patches and the same prefix. @param {Maps} a @param {Maps} b */
export function sameTokens(a, b) {
  return a.grid.rows === b.grid.rows && a.grid.cols === b.grid.cols && a.index.prefix.join() === b.index.prefix.join();
}

/** @param {Maps} maps */
function tokensOf({ grid, index }) {
  return [...index.prefix, `${grid.rows} × ${grid.cols} patches`].join(", ");
}

/** Whether both pool the same tokens; a pool by attention has other weights at each step. @param {Maps} a @param {Maps} b */
function samePool(a, b) {
  const byAttention = [a, b].map(({ about }) => Boolean(about.pooled || about.pooled_relevance));
  if (byAttention.some(Boolean)) return byAttention.every(Boolean);
  return a.index.pooled.join() === b.index.pooled.join();
}

/** Why they show another layer or head, or nothing; the last layers of both are compared as such. @param {Maps} a @param {Maps} b @param {State} state */
function otherHead(a, b, state) {
  const [layerA, layerB] = [a.layerOf(state), b.layerOf(state)];
  if (layerA !== layerB && state.layer >= 0) return `layer ${layerA + 1} is shown of A, layer ${layerB + 1} of B`;
  const [headA, headB] = [a.headOf(state), b.headOf(state)].map((head) => (typeof head === "number" ? `head ${head + 1}` : `the ${head} of heads`));
  return headA === headB ? "" : `${headA} is shown of A, ${headB} of B`;
}

/** B minus A, where both have the same tokens. @param {Shown} a @param {Shown} b @returns {Shown | null} */
export function difference(a, b) {
  if (a.values.length !== b.values.length) return null;
  const values = b.values.map((value, token) => value - a.values[token]);
  const hidden = new Set([...a.hidden, ...b.hidden]);
  const max = values.reduce((most, value, token) => (hidden.has(token) ? most : Math.max(most, Math.abs(value))), 0);
  return { values, total: sum(values), hidden, hiddenMass: 0, sinks: [], max };
}

/** B minus A on a scale from its own values, or why there is none. @param {Maps} a @param {Maps} b @param {Shown | null} shownA @param {Shown | null} shownB @param {State} state @returns {Comparison} */
export function compare(a, b, shownA, shownB, state) {
  const reason = obstacleTo(a, b, state);
  const change = !reason && shownA && shownB ? difference(shownA, shownB) : null;
  if (!change || !shownA || !shownB) return { change: null, scale: null, message: `not drawn: ${reason || "one of the two cannot be shown"}` };
  const percent = !isClassSpecific(b.index, state.method);
  const most = Math.max(shownA.max, shownB.max);
  const scale = scaleAround(change.max, percent, LEAST * most);
  if (change.max > RESOLUTION * most) return { change, scale, message: "red: more in B" };
  const least = change.max > 0 ? `: less than ${format(RESOLUTION * most, percent)}, which 8 bits cannot tell` : "";
  return { change, scale, message: `no difference${least}` };
}

/** The largest value of a patch that is shown: colours are those of the patches, and a prefix token may have more. @param {Maps} maps @param {Shown | null} shown */
export function mostOf({ grid, tokens }, shown) {
  let most = 0;
  for (let token = grid.prefix; shown && token < tokens; token++) if (shown.values[token] > most && !shown.hidden.has(token)) most = shown.values[token];
  return most;
}
