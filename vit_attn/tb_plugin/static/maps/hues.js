// @ts-check
/** Several heads in one picture, each with its hue. No DOM in here. */

/** Hues of Okabe and Ito that are told apart with every kind of colour vision: red, green, blue. */
export const HUES = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [204, 121, 167]];
export const HUE_NAMES = ["orange", "sky blue", "green", "yellow", "pink"];

/** Power of the values in a mixture of hues: with 1, patches of several heads turn grey. */
const SHARPNESS = 2;

/** @typedef {{most: number, red: number, green: number, blue: number, strength: number}} Blend most: which of the heads, -1 if none; strength: 0–1 */

/** Head that gives a patch most: its position among the heads; -1 where none gives anything. @param {ArrayLike<number>[]} heads values of patches @param {number} patch */
export function headWithMost(heads, patch) {
  let most = -1;
  heads.forEach((values, i) => { if (values[patch] > (most < 0 ? 0 : heads[most][patch])) most = i; });
  return most;
}

/**
 * Colour of a patch: hues weighted by a power of what their heads give; how much it covers is the root of the
 * largest value as a fraction of the largest anywhere.
 * @param {ArrayLike<number>[]} heads values of patches
 * @param {number} patch
 * @param {number} high largest value of any head and patch
 * @returns {Blend}
 */
export function blendOf(heads, patch, high) {
  const most = headWithMost(heads, patch);
  if (most < 0) return { most, red: 0, green: 0, blue: 0, strength: 0 };
  const weights = heads.map((values) => (values[patch] > 0 ? values[patch] ** SHARPNESS : 0));
  const total = weights.reduce((a, b) => a + b, 0);
  const [red, green, blue] = [0, 1, 2].map((channel) => weights.reduce((sum, weight, i) => sum + (weight / total) * HUES[i][channel], 0));
  return { most, red, green, blue, strength: Math.sqrt(Math.min(1, heads[most][patch] / high)) };
}

/** How many patches each head gives most to. @param {ArrayLike<number>[]} heads @param {number} patches @param {(patch: number) => boolean} [hidden] */
export function patchesWon(heads, patches, hidden = () => false) {
  const won = heads.map(() => 0);
  for (let patch = 0; patch < patches; patch++) {
    const most = hidden(patch) ? -1 : headWithMost(heads, patch);
    if (most >= 0) won[most]++;
  }
  return won;
}

/** Heads that have a colour: those chosen that exist, else the first ones. @param {number[]} chosen @param {number} heads @param {number} most */
export function colouredHeads(chosen, heads, most) {
  const known = chosen.filter((head) => head < heads);
  return known.length ? known : [...Array(Math.min(heads, most)).keys()];
}
