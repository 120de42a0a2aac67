// @ts-check
/** Ticks of an axis, and a line that ends where a value is missing. No DOM in here. */

/** Round numbers from `low` to at least `high`, about `count` of them. @param {number} low @param {number} high @param {number} count */
export function niceTicks(low, high, count) {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 2.5, 5, 10].find((each) => each * power >= rough * (1 - 1e-9)) ?? 10);
  const ticks = [];
  for (let i = Math.floor(low / step + 1e-9); ticks.length < 50; i++) {
    ticks.push(Number((i * step).toPrecision(12)));
    if (i * step >= high - 1e-9 * span) break;
  }
  return ticks;
}

/** A path through points, in pieces where a value is missing. @param {[number, number | null][]} points */
export function linePath(points) {
  let path = "";
  let drawing = false;
  for (const [x, y] of points) {
    if (y !== null) path += `${drawing ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    drawing = y !== null;
  }
  return path;
}

/** The mean of what is known; null if nothing is. @param {(number | null)[]} values */
export function knownMean(values) {
  const known = values.filter((value) => value !== null);
  return known.length ? known.reduce((a, b) => a + Number(b), 0) / known.length : null;
}
