// @ts-check
/** Measures of each head, and attention sinks. No DOM in here. Definitions: docs/methods.md. */

import { FRACTIONS } from "./arithmetic.js";

/** @typedef {import("./arithmetic.js").Layer} Layer */
/** @typedef {{rows: number, cols: number, prefix: number, height: number, width: number}} Grid patches and pixels */
/** @typedef {{entropy: number, normalisedEntropy: number, distance: number, sink: number, sinkToken: number, uniform: boolean, concentrated: boolean}} Measures */

/** A head attends uniformly in an image when its entropy is at least this fraction of the largest possible. */
export const UNIFORM = 0.97;
/** A head is concentrated in an image when one token gets at least this fraction of all its attention. */
export const CONCENTRATED = 0.5;
/** A sink gets this many times uniform attention, as in sinks.py. */
const SINK_TIMES = 10;
/** A row that gives patches no more than this has no distance, as in measures.py. */
const NO_WEIGHT = 1e-6;

const LOG_FRACTIONS = FRACTIONS.map((fraction) => (fraction > 0 ? fraction * Math.log(fraction) : 0));

/**
 * Entropy in nats and as a fraction of ln N; mean distance of the patches attended to, in pixels, without prefix; and the
 * largest column mean.
 * @param {Layer} layer
 * @param {number} head
 * @param {Grid} grid
 * @returns {Measures}
 */
export function measure(layer, head, grid) {
  const { tokens, peaks, codes } = layer;
  const columns = new Float64Array(tokens);
  const distances = patchDistances(grid);
  let entropy = 0;
  let distance = 0;
  let counted = 0; // a row of which nothing goes to patches counts for nothing, as in measures.py
  for (let row = 0; row < tokens; row++) {
    const peak = peaks[head * tokens + row];
    const at = (head * tokens + row) * tokens;
    let fractions = 0;
    let logs = 0;
    for (let key = 0; key < tokens; key++) {
      const code = codes[at + key];
      fractions += FRACTIONS[code];
      logs += LOG_FRACTIONS[code];
      columns[key] += peak * FRACTIONS[code];
    }
    if (fractions > 0) entropy += Math.log(fractions) - logs / fractions;
    if (row < grid.prefix) continue;
    const { weights, total } = weighDistances(codes, at + grid.prefix, distances, row - grid.prefix, grid);
    if (peak * weights <= NO_WEIGHT) continue;
    distance += total / weights;
    counted++;
  }
  let sinkToken = 0;
  for (let key = 1; key < tokens; key++) if (columns[key] > columns[sinkToken]) sinkToken = key;
  const sink = columns[sinkToken] / tokens;
  const normalisedEntropy = tokens > 1 ? entropy / tokens / Math.log(tokens) : 0;
  const uniform = normalisedEntropy >= UNIFORM;
  const concentrated = !uniform && sink >= CONCENTRATED;
  return { entropy: entropy / tokens, normalisedEntropy, distance: distance / Math.max(1, counted), sink, sinkToken, uniform, concentrated };
}

/** @param {Uint8Array} codes @param {number} at @param {Float32Array} distances @param {number} patch @param {Grid} grid */
function weighDistances(codes, at, distances, patch, { rows, cols }) {
  const row = Math.floor(patch / cols);
  const col = patch % cols;
  let weights = 0;
  let total = 0;
  for (let r = 0; r < rows; r++) {
    const down = Math.abs(r - row) * cols;
    for (let c = 0; c < cols; c++, at++) {
      const fraction = FRACTIONS[codes[at]];
      weights += fraction;
      total += fraction * distances[down + Math.abs(c - col)];
    }
  }
  return { weights, total };
}

/** Distance of patch centres in pixels by rows and columns between them. @param {Grid} grid */
function patchDistances({ rows, cols, height, width }) {
  const distances = new Float32Array(rows * cols);
  for (let i = 0; i < distances.length; i++) {
    distances[i] = Math.hypot((Math.floor(i / cols) * height) / rows, ((i % cols) * width) / cols);
  }
  return distances;
}

/** The least attention that makes a sink among so many tokens, in words. @param {number} tokens */
export function sinkThreshold(tokens) {
  return tokens < 2 * SINK_TIMES ? "half of the attention" : "ten times uniform attention";
}

/**
 * Patches of `known` sinks that are sinks of these maps too: a column mean of ten times 1/N, or half.
 * @param {Float32Array[]} matrices
 * @param {number} prefix
 * @param {Set<number>} known tokens that get as much whatever the image shows
 * @returns {number[]}
 */
export function findSinks(matrices, prefix, known) {
  const tokens = Math.sqrt(matrices[0].length);
  const columns = new Float64Array(tokens);
  for (const matrix of matrices) {
    for (let at = 0; at < matrix.length; at++) columns[at % tokens] += matrix[at];
  }
  const found = [];
  const limit = Math.min(SINK_TIMES, tokens / 2) * matrices.length; // 10 / N or a half, times N rows of each map
  for (let token = prefix; token < tokens; token++) if (known.has(token) && columns[token] >= limit) found.push(token);
  return found;
}
