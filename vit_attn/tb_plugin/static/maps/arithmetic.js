// @ts-check
/** Maps from bytes, rows and columns of them, and rollout. No DOM in here: `node --test` runs it. */

/** @typedef {{heads: number, tokens: number, peaks: Float32Array, codes: Uint8Array}} Layer one layer's maps, as logged */
/** @typedef {"mean" | "max" | "min" | number} Head a fusion of all heads, or the index of one */

const HEADER = 16;
const MAGIC = "VATN";
export const VERSION = 2; // and 1, whose codes are not deflated

/** Fraction of its row's maximum that a code stands for. */
export const FRACTIONS = Float32Array.from({ length: 256 }, (_, code) => (code / 255) ** 2);

/**
 * Layers of a reply, one after another; each is a header, its rows' maxima and its codes, deflated since version 2.
 * @param {ArrayBuffer} buffer
 * @returns {Promise<Layer[]>}
 */
export async function decodeLayers(buffer) {
  const layers = [];
  const view = new DataView(buffer);
  for (let at = 0; at < buffer.byteLength; ) {
    if (at + HEADER > buffer.byteLength) throw new Error(`corrupt maps: cut off at byte ${at}`);
    const magic = String.fromCharCode(...new Uint8Array(buffer, at, 4));
    if (magic !== MAGIC) throw new Error(`corrupt maps: they begin with ${JSON.stringify(magic)}`);
    const version = view.getUint16(at + 4, true);
    if (version !== 1 && version !== VERSION) throw new Error(`maps of format version ${version}; this page reads ${VERSION}`);
    const heads = view.getUint16(at + 6, true);
    const tokens = view.getUint32(at + 8, true);
    const deflated = version > 1;
    const peaks = at + HEADER + (deflated ? 4 : 0);
    const codes = peaks + 4 * heads * tokens;
    const count = heads * tokens * tokens;
    at = codes + (deflated && peaks <= buffer.byteLength ? view.getUint32(peaks - 4, true) : count);
    if (at > buffer.byteLength) throw new Error(`corrupt maps: ${buffer.byteLength} bytes instead of ${at}`);
    const copy = buffer.slice(peaks, codes); // aligned to four bytes
    const bytes = new Uint8Array(buffer, codes, at - codes);
    layers.push({ heads, tokens, peaks: new Float32Array(copy), bytes, deflated, count });
  }
  return Promise.all(layers.map(async ({ heads, tokens, peaks, bytes, deflated, count }) => ({ heads, tokens, peaks, codes: deflated ? await inflate(bytes, count) : bytes })));
}

/** As many bytes from a deflated stream, and no more whatever it holds. @param {Uint8Array<ArrayBuffer>} bytes @param {number} count */
async function inflate(bytes, count) {
  const codes = new Uint8Array(count);
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  let at = 0;
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (at + part.value.length > count) throw new Error("too many");
      codes.set(part.value, at);
      at += part.value.length;
    }
  } catch (error) {
    reader.cancel().catch(() => {});
    throw new Error(`corrupt maps: ${error instanceof Error ? error.message : error} after ${at} of ${count} codes`);
  }
  if (at < count) throw new Error(`corrupt maps: ${at} codes instead of ${count}`);
  return codes;
}

/**
 * Attention of a query in one head: a row of its map.
 * @param {Layer} layer
 * @param {number} head
 * @param {number} query
 */
export function rowOf(layer, head, query) {
  const { tokens, peaks, codes } = layer;
  const row = head * tokens + query;
  const values = new Float32Array(tokens);
  for (let key = 0; key < tokens; key++) values[key] = peaks[row] * FRACTIONS[codes[row * tokens + key]];
  return values;
}

/**
 * Attention to a key in one head: a column of its map.
 * @param {Layer} layer
 * @param {number} head
 * @param {number} key
 */
export function columnOf(layer, head, key) {
  const { tokens, peaks, codes } = layer;
  const values = new Float32Array(tokens);
  for (let query = 0; query < tokens; query++) {
    const row = head * tokens + query;
    values[query] = peaks[row] * FRACTIONS[codes[row * tokens + key]];
  }
  return values;
}

/**
 * One map from a layer: a head's own, or that of all heads by their mean, maximum or minimum; N × N, row by row.
 * @param {Layer} layer
 * @param {Head} fusion
 */
export function fuse(layer, fusion) {
  const { heads, tokens, peaks, codes } = layer;
  const size = tokens * tokens;
  const fused = new Float32Array(size).fill(fusion === "min" ? Infinity : 0);
  const first = typeof fusion === "number" ? fusion : 0;
  const end = typeof fusion === "number" ? fusion + 1 : heads;
  const factor = fusion === "mean" ? 1 / heads : 1;
  for (let head = first; head < end; head++) {
    for (let row = 0; row < tokens; row++) {
      const peak = peaks[head * tokens + row] * factor;
      const from = head * size + row * tokens;
      const to = row * tokens;
      if (fusion === "max") for (let i = 0; i < tokens; i++) fused[to + i] = Math.max(fused[to + i], peak * FRACTIONS[codes[from + i]]);
      else if (fusion === "min") for (let i = 0; i < tokens; i++) fused[to + i] = Math.min(fused[to + i], peak * FRACTIONS[codes[from + i]]);
      else for (let i = 0; i < tokens; i++) fused[to + i] += peak * FRACTIONS[codes[from + i]];
    }
  }
  return fused;
}

/**
 * A weighted sum of a map's rows: `weights @ matrix`.
 * @param {Float32Array} matrix
 * @param {Float32Array} weights
 */
export function mixRows(matrix, weights) {
  const tokens = weights.length;
  const mixed = new Float32Array(tokens);
  for (let row = 0; row < tokens; row++) {
    const weight = weights[row];
    if (weight === 0) continue;
    for (let i = 0, at = row * tokens; i < tokens; i++, at++) mixed[i] += weight * matrix[at];
  }
  return mixed;
}

/**
 * The weighted sum of a head's rows without its matrix; for one query use `rowOf`.
 * @param {Layer} layer
 * @param {number} head
 * @param {Float32Array} weights
 */
export function mixHead(layer, head, weights) {
  const { tokens, peaks, codes } = layer;
  const mixed = new Float32Array(tokens);
  for (let row = 0; row < tokens; row++) {
    if (weights[row] === 0) continue;
    const scale = weights[row] * peaks[head * tokens + row];
    for (let i = 0, at = (head * tokens + row) * tokens; i < tokens; i++, at++) mixed[i] += scale * FRACTIONS[codes[at]];
  }
  return mixed;
}

/**
 * A map's column.
 * @param {Float32Array} matrix
 * @param {number} key
 */
export function pickColumn(matrix, key) {
  const tokens = Math.sqrt(matrix.length);
  return Float32Array.from({ length: tokens }, (_, row) => matrix[row * tokens + key]);
}

/**
 * Weight of each token's identity in rollout: one over one plus the sum of its row.
 * @param {Float32Array} matrix
 */
function identityWeights(matrix) {
  const tokens = Math.sqrt(matrix.length);
  return Float32Array.from({ length: tokens }, (_, row) => 1 / (1 + sum(matrix.subarray(row * tokens, (row + 1) * tokens))));
}

/**
 * Rollout of a row through all layers: half attention, half identity, rows divided by their sum, layers multiplied.
 * @param {Float32Array[]} matrices the first layer first
 * @param {Float32Array} weights the row at the top
 */
export function rollRow(matrices, weights) {
  let row = weights;
  for (let layer = matrices.length - 1; layer >= 0; layer--) {
    const kept = identityWeights(matrices[layer]).map((weight, token) => weight * row[token]);
    row = mixRows(matrices[layer], kept).map((value, token) => value + kept[token]);
  }
  return row;
}

/**
 * How much of one input token reaches each token through all layers: a column of the rollout.
 * @param {Float32Array[]} matrices the first layer first
 * @param {number} key
 */
export function rollColumn(matrices, key) {
  const tokens = Math.sqrt(matrices[0].length);
  let column = new Float32Array(tokens);
  column[key] = 1;
  for (const matrix of matrices) {
    const weights = identityWeights(matrix);
    const next = new Float32Array(tokens);
    for (let row = 0; row < tokens; row++) {
      let reached = column[row];
      for (let i = 0, at = row * tokens; i < tokens; i++, at++) reached += matrix[at] * column[i];
      next[row] = weights[row] * reached;
    }
    column = next;
  }
  return column;
}

/**
 * Rollout of every token: N × N, row by row; O(L·N³).
 * @param {Float32Array[]} matrices the first layer first
 */
export function rollMatrix(matrices) {
  const tokens = Math.sqrt(matrices[0].length);
  let rolled = new Float32Array(tokens * tokens);
  for (let i = 0; i < tokens; i++) rolled[i * tokens + i] = 1;
  for (const matrix of matrices) {
    const weights = identityWeights(matrix);
    const next = new Float32Array(tokens * tokens);
    for (let row = 0; row < tokens; row++) {
      const attention = matrix.slice(row * tokens, (row + 1) * tokens);
      attention[row] += 1;
      next.set(mixRows(rolled, attention.map((value) => value * weights[row])), row * tokens);
    }
    rolled = next;
  }
  return rolled;
}

/** @param {Float32Array} values */
export function sum(values) {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i];
  return total;
}
