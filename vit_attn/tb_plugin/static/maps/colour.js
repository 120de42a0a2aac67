// @ts-check
/** Colours of values, and numbers as text. No DOM in here. */

/** Viridis: perceptually uniform, and in order without colour vision too. */
const SEQUENTIAL =
  "440154470d6048186a482374472d7b4537814240863e49893b528b375b8d33638d2f6b8e2c728e297a8e26828e23898e21918c1f988b1fa08822a785" +
  "28ae8032b67a3fbc734ec36b5ec96270cf5784d44b98d83eaddc30c2df23d8e219ece51bfde725";
/** Moreland's cool to warm: blue is less, red is more, both ends alike dark. */
const DIVERGING =
  "3b4cc0445acc4e68d85875e16282ea6c8ff1779af782a6fb8db0fe98b9ffa3c2feaec9fcb9d0f9c3d5f4ccd9edd5dbe5dddcdce5d8d1ecd3c5f1ccb8" +
  "f5c4acf7ba9ff7b093f6a586f4987af08b6eeb7d62e46e56dd5f4bd44e41ca3b37be242eb40426";

/** @typedef {Uint8ClampedArray} Colours 256 times red, green, blue */

/** @param {string} stops @returns {Colours} */
function interpolate(stops) {
  const count = stops.length / 6 - 1;
  const colours = new Uint8ClampedArray(768);
  const channel = (/** @type {number} */ stop, /** @type {number} */ c) => parseInt(stops.slice(6 * stop + 2 * c, 6 * stop + 2 * c + 2), 16);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * count;
    const stop = Math.min(Math.floor(at), count - 1);
    for (let c = 0; c < 3; c++) {
      colours[3 * i + c] = channel(stop, c) + (at - stop) * (channel(stop + 1, c) - channel(stop, c));
    }
  }
  return colours;
}

export const sequential = interpolate(SEQUENTIAL);
export const diverging = interpolate(DIVERGING);

/** @typedef {{low: number, high: number, colours: Colours, percent: boolean, uniform?: number}} Scale uniform: 1/N, of fractions of attention */

/** The scale of attention reaches at least this many times 1/N: were it the largest value, uniform attention would be all yellow, and noise would look like a pattern. */
export const LEAST_TIMES = 4;

/** From nothing to the largest value. @param {number} high @param {boolean} percent @returns {Scale} */
export function scaleTo(high, percent) {
  return { low: 0, high: high > 0 ? high : 1, colours: sequential, percent };
}

/** Of a map: fractions of attention among so many tokens, or values without a unit. @param {number} most @param {boolean} percent @param {number} tokens @returns {Scale} */
export function mapScale(most, percent, tokens) {
  if (!percent) return scaleTo(most, false);
  return { ...scaleTo(Math.max(most, Math.min(1, LEAST_TIMES / tokens)), true), uniform: 1 / tokens };
}

/** From less to more, with no change in the middle. @param {number} most @param {boolean} percent @param {number} least where the scale ends at the nearest @returns {Scale} */
export function scaleAround(most, percent, least = 0) {
  const high = Math.max(most, least) || Number.EPSILON;
  return { low: -high, high, colours: diverging, percent };
}

/** Where a value's colour stands in `scale.colours`; -1 for what is not a number. @param {Scale} scale @param {number} value */
export function colourAt(scale, value) {
  if (!Number.isFinite(value)) return -1;
  const fraction = (value - scale.low) / (scale.high - scale.low);
  return 3 * Math.round(255 * Math.min(1, Math.max(0, fraction)));
}

/** @param {Scale} scale @param {number} value */
export function cssColour(scale, value) {
  const at = colourAt(scale, value);
  return at < 0 ? "transparent" : `rgb(${scale.colours.subarray(at, at + 3).join(" ")})`;
}

/** Relative luminance, by WCAG, above which black has more contrast than white: then either has 4.5 or more. */
const HALFWAY = 0.179;

/** Whether black text reads better on a value's colour. @param {Scale} scale @param {number} value */
export function isLight(scale, value) {
  const at = colourAt(scale, value);
  if (at < 0) return true;
  const [red, green, blue] = [...scale.colours.subarray(at, at + 3)].map((part) => (part <= 10 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > HALFWAY;
}

/** A fraction of attention as text, three significant digits. @param {number} value @param {boolean} percent */
export function format(value, percent) {
  if (!Number.isFinite(value)) return "not a number";
  const number = percent ? 100 * value : value;
  const size = Math.abs(number);
  const digits = size === 0 || size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  const small = percent ? "<\u202f0.001" : number.toExponential(1);
  const text = size > 0 && size < 0.0005 ? (percent && number < 0 ? "−0.000" : small) : number.toFixed(digits);
  return `${text.replace("-", "−")}${percent ? "\u202f%" : ""}`;
}

/** A predicted probability as text. @param {number | null | undefined} value */
export function probability(value) {
  const percent = 100 * (value ?? NaN);
  if (!Number.isFinite(percent)) return "not a number";
  if (percent >= 99.5 && percent < 100) return ">99\u202f%";
  return `${percent >= 9.95 ? percent.toFixed(0) : percent >= 1 ? percent.toFixed(1) : percent > 0 ? "<1" : "0"}\u202f%`;
}

/** @param {number} bytes */
export function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 9.95e6 ? 1 : 0)}\u202fMB`;
}
