// @ts-check
/** Values between the centres of patches, interpolated. No DOM in here. */

/** What a figure says that interpolates. */
export const INTERPOLATED = "interpolated between patch centres";

/**
 * Bilinear interpolation of a grid; outside of the outer centres it stays constant. What is left out or not a number has no weight.
 * @param {ArrayLike<number>} values row by row
 * @param {number} rows
 * @param {number} cols
 * @param {number} height pixels of the result
 * @param {number} width
 * @param {(i: number) => boolean} [hidden]
 */
export function bilinear(values, rows, cols, height, width, hidden = () => false) {
  const result = new Float32Array(height * width);
  const along = (/** @type {number} */ at, /** @type {number} */ size, /** @type {number} */ count) => {
    const place = Math.min(count - 1, Math.max(0, ((at + 0.5) * count) / size - 0.5));
    const low = Math.min(Math.floor(place), Math.max(0, count - 2));
    return { low, high: Math.min(low + 1, count - 1), part: count > 1 ? place - low : 0 };
  };
  const columns = Array.from({ length: width }, (_, x) => along(x, width, cols));
  for (let y = 0, at = 0; y < height; y++) {
    const down = along(y, height, rows);
    for (let x = 0; x < width; x++, at++) {
      const across = columns[x];
      let total = 0;
      let weights = 0;
      for (const [row, vertical] of [[down.low, 1 - down.part], [down.high, down.part]]) {
        for (const [col, horizontal] of [[across.low, 1 - across.part], [across.high, across.part]]) {
          const i = row * cols + col;
          const weight = vertical * horizontal;
          if (weight === 0 || !Number.isFinite(values[i]) || hidden(i)) continue;
          total += weight * values[i];
          weights += weight;
        }
      }
      result[at] = weights > 0 ? total / weights : NaN;
    }
  }
  return result;
}
