// @ts-check
/** Queries and keys of one layer, from bytes, and the score of two tokens channel by channel. No DOM in here. */

/** @typedef {{heads: number, tokens: number, channels: number, queries: Float32Array, keys: Float32Array}} QueriesKeys heads × tokens × channels */
/** @typedef {{q: Float32Array, k: Float32Array, products: Float32Array, dot: number, score: number | null, weight: number | null, range: [number, number] | null}} Explained range: of the weight, as queries and keys are rounded */

const QK_HEADER = 16;
const QK_VERSION = 1;

/** @param {ArrayBuffer} buffer @returns {QueriesKeys} */
export function decodeQueriesKeys(buffer) {
  const view = new DataView(buffer);
  const magic = buffer.byteLength < QK_HEADER ? "" : String.fromCharCode(...new Uint8Array(buffer, 0, 4));
  if (magic !== "VAQK") throw new Error(`corrupt queries and keys: they begin with ${JSON.stringify(magic)}`);
  const version = view.getUint16(4, true);
  if (version !== QK_VERSION) throw new Error(`queries and keys of format version ${version}; this page reads ${QK_VERSION}`);
  const [heads, tokens, channels] = [view.getUint16(6, true), view.getUint32(8, true), view.getUint32(12, true)];
  const vectors = heads * tokens;
  const part = vectors * (4 + channels);
  if (buffer.byteLength !== QK_HEADER + 2 * part) throw new Error(`corrupt queries and keys: ${buffer.byteLength} bytes instead of ${QK_HEADER + 2 * part}`);
  const read = (/** @type {number} */ at) => {
    const peaks = new Float32Array(buffer.slice(at, at + 4 * vectors));
    const codes = new Int8Array(buffer, at + 4 * vectors, vectors * channels);
    return Float32Array.from(codes, (code, i) => (code / 127) * peaks[Math.floor(i / channels)]);
  };
  return { heads, tokens, channels, queries: read(QK_HEADER), keys: read(QK_HEADER + part) };
}

/** One token's vector in a head. @param {QueriesKeys} layer @param {"queries" | "keys"} which @param {number} head @param {number} token */
export function vectorOf(layer, which, head, token) {
  const at = (head * layer.tokens + token) * layer.channels;
  return layer[which].subarray(at, at + layer.channels);
}

/** @param {Float32Array} a @param {Float32Array} b */
function dotProduct(a, b) {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i] * b[i];
  return total;
}

/** Scores of a query with every key. @param {QueriesKeys} layer @param {number} head @param {number} query @param {number} scale */
export function scoresOf(layer, head, query, scale) {
  const q = vectorOf(layer, "queries", head, query);
  return Float64Array.from({ length: layer.tokens }, (_, key) => scale * dotProduct(q, vectorOf(layer, "keys", head, key)));
}

/** @param {Float64Array} scores */
export function softmax(scores) {
  const most = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = scores.map((score) => Math.exp(score - most));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / total);
}

/** Standard deviations of a score's error within which its weight is said to be. */
const DEVIATIONS = 4;

/** Standard deviations of the errors of a query's scores: each channel is rounded to 1/127 of its vector's largest magnitude. @param {QueriesKeys} layer @param {number} head @param {number} query @param {number} scale */
export function scoreErrors(layer, head, query, scale) {
  const size = (/** @type {Float32Array} */ vector) => ({ length2: dotProduct(vector, vector), step2: (vector.reduce((a, b) => Math.max(a, Math.abs(b)), 0) / 127) ** 2 });
  const q = size(vectorOf(layer, "queries", head, query));
  return Float64Array.from({ length: layer.tokens }, (_, key) => {
    const k = size(vectorOf(layer, "keys", head, key));
    return Math.abs(scale) * Math.sqrt((q.length2 * k.step2 + k.length2 * q.step2) / 12);
  });
}

/** Least and largest weight of a key by softmax of scores with such errors. @param {Float64Array} weights @param {Float64Array} errors @param {number} key @returns {[number, number]} */
function weightRange(weights, errors, key) {
  let [others, error] = [0, 0];
  for (let i = 0; i < weights.length; i++) {
    if (i === key) continue;
    others += weights[i];
    error += weights[i] * errors[i];
  }
  if (others === 0) return [weights[key], weights[key]];
  const change = Math.exp(DEVIATIONS * (errors[key] + error / others));
  return [weights[key] / (weights[key] + others * change), weights[key] / (weights[key] + others / change)];
}

/**
 * Query, key and their products, whose sum times the scale is the score; softmax over all keys makes the score a weight.
 * @param {QueriesKeys} layer
 * @param {number} head
 * @param {number} query
 * @param {number} key
 * @param {number | null} scale `null` where the score is computed in another way, so that there is no score and no weight
 * @returns {Explained}
 */
export function explainScore(layer, head, query, key, scale) {
  const q = vectorOf(layer, "queries", head, query);
  const k = vectorOf(layer, "keys", head, key);
  const products = q.map((value, channel) => value * k[channel]);
  const dot = dotProduct(q, k);
  if (scale === null) return { q, k, products, dot, score: null, weight: null, range: null };
  const weights = softmax(scoresOf(layer, head, query, scale));
  return { q, k, products, dot, score: scale * dot, weight: weights[key], range: weightRange(weights, scoreErrors(layer, head, query, scale), key) };
}

/**
 * What a softmax and a logged weight that differ say of the score.
 * @param {number} weight
 * @param {[number, number]} range of the softmax, by the rounding of queries and keys
 * @param {number} logged
 * @param {number} rounding of the logged weight
 * @returns {"alike" | "rounded" | "other"}
 */
export function compareWeights(weight, [least, most], logged, rounding) {
  if (!(Math.abs(weight - logged) > Math.max(0.005, 0.1 * logged))) return "alike";
  return logged + rounding >= least && logged - rounding <= most ? "rounded" : "other";
}

/** Channels by the size of their product, the largest first. @param {Float32Array} products */
export function byInfluence(products) {
  return [...products.keys()].sort((a, b) => Math.abs(products[b]) - Math.abs(products[a]));
}

/** Codes between neighbouring levels of maps that were written in as few levels as the least bits a weight leave. */
const WIDEST_GAP = 22;

/**
 * How far a logged weight may be from the exact one: half of the way to the next level that its head has, and its code's rounding.
 * @param {import("./arithmetic.js").Layer} layer
 * @param {number} head
 * @param {number} query
 * @param {number} key
 */
export function roundingOf({ tokens, peaks, codes }, head, query, key) {
  const found = new Uint8Array(256);
  const size = tokens * tokens;
  for (let i = head * size; i < (head + 1) * size; i++) found[codes[i]] = 1;
  let gap = WIDEST_GAP;
  for (let code = 0, last = -Infinity; code < 256; code++) {
    if (!found[code]) continue;
    gap = Math.min(gap, code - last);
    last = code;
  }
  const row = head * tokens + query;
  const code = codes[row * tokens + key] / 255;
  return peaks[row] * ((code + (gap / 2 + 1) / 255) ** 2 - code ** 2);
}
