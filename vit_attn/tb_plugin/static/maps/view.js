// @ts-check
/** The view of one image at one step, from its maps and the state. No DOM in here. */

import { columnOf, fuse, mixHead, mixRows, pickColumn, rollColumn, rollMatrix, rollRow, rowOf, sum } from "./arithmetic.js";
import { findSinks, measure } from "./measures.js";
import { hasMethod, hasTarget, isByLayer, loggedMethod, targetRow } from "./methods.js";
import { matrixObstacleOf, obstacleOf } from "./obstacles.js";
import { Replies, questionOf } from "./questions.js";

/** @typedef {import("./arithmetic.js").Layer} Layer */
/** @typedef {import("../data/state.js").State} State */
/** @typedef {{label: string | null, name?: string, problem?: string, crop?: number[], top: [string, number | null][], right: boolean | null, size: [number, number], ground_truth?: Record<string, number[]> | null, answer_region?: string | null, answer?: Record<string, number[]> | null, verdict?: Record<string, number | null> | null, judged?: import("./faithfulness.js").Measures, rows?: Record<string, (number | null)[]>, pooled?: number[], pooled_relevance?: number[], picture?: string, number?: number, queries_keys?: boolean} & import("./methods.js").Targets} About answer, verdict: of earlier versions; label and right: null where the class is unknown; name: of the file; problem: why the network cannot see it; crop: the region that it sees, as fractions of height and width: top, left, height, width; rows: maps of the pooled row by method; picture: hash of the pixels */
/** @typedef {{images: number, layers: {heads: number[][], mean: number[]}[] | null}} Sinks tokens that are sinks, by layer and head, over that many images */
/** @typedef {{grid: [number, number], prefix: string[], layers: string[], heads: number[], pooled: number[], relevance: boolean, note: string, methods?: import("./methods.js").Method[], sinks?: Sinks, score_scale?: (number | null)[], judged?: {orders: number, images: number, methods: import("./faithfulness.js").Measures}, asks?: boolean, ofPictures?: boolean, classes?: string[], cuts?: number, images: About[]}} Index ofPictures: whether it is of a network as it is, and of no training; asks: whether a running network answers, and then the names of its classes, and how much is cut in it */
/** @typedef {{values: Float32Array, total: number, hidden: Set<number>, hiddenMass: number, sinks: number[], max: number}} Shown */

/** Maps of one image at one step, and what was computed from them. */
export class Maps {
  /**
   * @param {{run: string, step: number, image: number}} place
   * @param {Index} index
   * @param {(Layer | null)[]} layers `null` where a layer is not loaded
   * @param {Layer | null} relevance
   */
  constructor(place, index, layers, relevance) {
    this.place = place;
    this.index = index;
    this.about = index.images[place.image];
    this.layers = layers;
    this.relevance = relevance;
    const [rows, cols] = index.grid;
    const [height, width] = this.about.size;
    this.grid = { rows, cols, prefix: index.prefix.length, height, width };
    this.whole = 0; // bytes of all layers
    this.tokens = rows * cols + index.prefix.length;
    this.replies = new Replies();
    /** @type {Map<string, any>} */
    this.cache = new Map();
  }

  /** Whether every layer is here. */
  get complete() {
    return this.layers.every(Boolean);
  }

  /** Bytes that are held for it. */
  get bytes() {
    const stored = [...this.layers, this.relevance].map((layer) => (layer ? layer.codes.length + 4 * layer.peaks.length : 0));
    const computed = [...this.cache.values()].flat().map((each) => each?.byteLength ?? 0);
    return [...stored, ...computed].reduce((a, b) => a + b, 0);
  }

  /** @template T @param {string} name @param {string} key @param {() => T} compute @returns {T} the last result of a name is kept */
  remember(name, key, compute) {
    if (this.cache.get(`${name} key`) !== key) {
      this.cache.set(name, compute());
      this.cache.set(`${name} key`, key);
    }
    return this.cache.get(name);
  }

  /** Prefix tokens, rows and columns. */
  get gridName() {
    return [this.grid.prefix, this.grid.rows, this.grid.cols].join(" ");
  }

  /** A state as it can be shown here: the query at its place in the image, raw attention for a method that was not logged, the predicted class for another without a map. @param {State} state @returns {State} */
  possible(state) {
    const method = hasMethod(this.index, state.method) ? state.method : "raw";
    const target = hasTarget(this.index, this.about, method, state.target) ? state.target : "";
    return { ...state, query: this.tokenAt(state.query, state.queryGrid), queryGrid: this.gridName, method, target };
  }

  /** The token at the place of one that was chosen in another grid of patches. @template {number | "pool"} T @param {T} token @param {string} gridName of that grid, or "" if it is this one @returns {T | number} */
  tokenAt(token, gridName) {
    const { prefix, rows, cols } = this.grid;
    const [ofPrefix, ofRows, ofCols] = gridName.split(" ").map(Number);
    if (typeof token !== "number" || !(ofCols > 0) || token < ofPrefix || token >= ofPrefix + ofRows * ofCols) return token;
    const row = Math.floor(((Math.floor((token - ofPrefix) / ofCols) + 0.5) * rows) / ofRows);
    const col = Math.floor(((((token - ofPrefix) % ofCols) + 0.5) * cols) / ofCols);
    return prefix + row * cols + col;
  }

  /** Whether what a state shows was loaded. @param {State} state */
  has(state) {
    const possible = this.possible(state);
    const { method } = possible;
    const question = this.question(possible);
    if (question) return this.replies.to(question) !== undefined;
    return Boolean(loggedMethod(this.index, method) ?? (method === "relevance" ? this.relevance : this.layers[this.layerOf(state)]));
  }

  /** The layer of a state; the last one where another network was deeper. @param {State} state */
  layerOf(state) {
    const last = this.layers.length - 1;
    return state.layer < 0 ? last : Math.min(state.layer, last);
  }

  /** The head or fusion of a state; only raw attention has single heads. @param {State} state */
  headOf(state) {
    const heads = this.index.heads[this.layerOf(state)];
    if (typeof state.head !== "number") return state.head;
    return state.method === "raw" && state.head < heads ? state.head : "mean";
  }

  /** Weights of the tokens in the state's query: one token, or what the network pools. @param {State} state */
  weights(state) {
    if (state.query === "pool") return Float32Array.from(this.about.pooled ?? this.index.pooled);
    const weights = new Float32Array(this.tokens);
    weights[state.query] = 1;
    return weights;
  }

  /** Fused maps of all layers up to the state's, for rollout. @param {State} state */
  fused(state) {
    const fusion = this.headOf(state);
    const all = this.remember("fused", String(fusion), () => this.layers.map((layer) => fuse(/** @type {Layer} */ (layer), fusion)));
    return isByLayer(state.method) ? all.slice(0, this.layerOf(state) + 1) : all;
  }

  /** The map of the state's layer and head. @param {State} state */
  matrixOfLayer(state) {
    const layer = this.layerOf(state);
    const head = this.headOf(state);
    return this.remember("layer", `${layer} ${head}`, () => fuse(/** @type {Layer} */ (this.layers[layer]), head));
  }

  /** What the running network must be asked for a state; nothing where the maps have it. @param {State} state as it can be shown */
  question(state) {
    return questionOf(this, state);
  }

  /** Why the state's method cannot be shown here, or nothing. @param {State} state */
  obstacle(state) {
    return obstacleOf(this, state);
  }

  /** Why there is no matrix, or nothing. @param {State} state */
  matrixObstacle(state) {
    return matrixObstacleOf(this, state);
  }

  /** The N × N map behind the view; `null` where only a row was logged, or where it would take too long. @param {State} state */
  matrix(state) {
    if (this.matrixObstacle(state)) return null;
    if (state.method === "relevance") return this.remember("relevance", "", () => fuse(/** @type {Layer} */ (this.relevance), 0));
    if (state.method === "raw") return this.matrixOfLayer(state);
    return this.remember("rolled", `${this.headOf(state)} ${this.layerOf(state)}`, () => rollMatrix(this.fused(state)));
  }

  /** A value for every token. @param {State} state */
  values(state) {
    const column = state.direction === "to" && state.query !== "pool";
    const { pooled_relevance: pooled, rows, target_rows: others } = this.about;
    const question = this.question(state);
    if (question) return /** @type {Float32Array} */ (this.replies.to(question));
    if (state.target) return Float32Array.from(others?.[state.method][targetRow(this.index, this.about, state.method, state.target)] ?? [], (value) => value ?? NaN);
    if (loggedMethod(this.index, state.method)) return Float32Array.from(rows?.[state.method] ?? [], (value) => value ?? NaN);
    if (state.method === "relevance" && state.query === "pool" && pooled) return Float32Array.from(pooled);
    if (state.method === "rollout") {
      const fused = this.fused(state);
      return column ? rollColumn(fused, Number(state.query)) : rollRow(fused, this.weights(state));
    }
    const matrix = /** @type {Float32Array} */ (this.matrix(state));
    return column ? pickColumn(matrix, Number(state.query)) : mixRows(matrix, this.weights(state));
  }

  /** Patches that are sinks in the maps behind what is shown. @param {State} state @returns {number[]} */
  sinks(state) {
    const layers = this.index.sinks?.layers;
    if (!layers || this.obstacle(state) || (state.method !== "raw" && !this.complete)) return [];
    const key = `${state.method} ${this.layerOf(state)} ${this.headOf(state)} ${this.complete}`;
    return this.remember("sinks", key, () => this.findSinks(layers, state));
  }

  /** @param {{heads: number[][], mean: number[]}[]} layers tokens that are sinks over the images @param {State} state */
  findSinks(layers, state) {
    const [last, head] = [isByLayer(state.method) ? this.layerOf(state) : layers.length - 1, this.headOf(state)];
    const chosen = layers.slice(state.method === "raw" ? last : 0, last + 1);
    const of = (/** @type {{heads: number[][], mean: number[]}} */ { heads, mean }) => (typeof head === "number" ? heads[head] : head === "mean" ? mean : heads.flat());
    return findSinks(state.method === "raw" ? [this.matrixOfLayer(state)] : this.fused(state), this.grid.prefix, new Set(chosen.flatMap(of)));
  }

  /** Whether a token is a sink of a head, over the images that were logged. @param {number} layer @param {number} head @param {number} token */
  isSink(layer, head, token) {
    return Boolean(this.index.sinks?.layers?.[layer].heads[head].includes(token));
  }

  /** Values, and how much of them is hidden with prefix and sinks. @param {State} state @param {number[]} left patches to leave out, in a comparison those of the other side too @returns {Shown} */
  show(state, left = this.sinks(state)) {
    const values = this.values(state);
    const sinks = this.sinks(state);
    const hidden = new Set(state.hide ? [...Array(this.grid.prefix).keys(), ...left] : []);
    const hiddenMass = [...hidden].reduce((mass, token) => mass + values[token], 0);
    const max = values.reduce((most, value, token) => (value > most && !hidden.has(token) ? value : most), 0);
    return { values, total: sum(values), hidden, hiddenMass, sinks, max };
  }

  /** A small map: the state's query in one head, patches only. @param {State} state @param {number} layer @param {number} head */
  small(state, layer, head) {
    const maps = /** @type {Layer} */ (this.layers[layer]);
    if (state.query === "pool") return mixHead(maps, head, this.weights(state)).subarray(this.grid.prefix);
    const pick = state.direction === "to" ? columnOf : rowOf;
    return pick(maps, head, state.query).subarray(this.grid.prefix);
  }

  /** Measures of every head of the loaded layers. */
  measures() {
    return this.remember("measures", this.layers.map(Boolean).join(), () =>
      this.layers.map((layer) => (layer ? Array.from({ length: layer.heads }, (_, head) => measure(layer, head, this.grid)) : [])),
    );
  }
}

/** Which rank a value has among others, 1 for the largest; of equal ones the range. @param {Float32Array} values @param {number} value @param {string} [what] they are of */
export function rankOf(values, value, what = "") {
  if (!Number.isFinite(value)) return "no rank";
  const first = 1 + values.filter((each) => each > value).length;
  const equal = values.filter((each) => each === value).length;
  return `rank ${first}${equal > 1 ? `–${first + equal - 1} (equal)` : ""} of ${values.length}${what}`;
}

/** A token's name: CLS, R1, or a patch by row and column, counted from 1. @param {Index} index @param {number | "pool"} token */
export function tokenName(index, token) {
  if (token === "pool") return "pooled row";
  if (token < index.prefix.length) return index.prefix[token];
  const patch = token - index.prefix.length;
  return `row ${Math.floor(patch / index.grid[1]) + 1}, column ${(patch % index.grid[1]) + 1}`;
}

/** An image's number, from 1, as it was logged: an exported file may hold some of them. @param {Index | undefined} index @param {number} image */
export function imageNumber(index, image) {
  return index?.images[image]?.number ?? image + 1;
}

/** What is cut in the network that is shown, in words. @param {Index | undefined} index */
export function cutsPhrase(index) {
  return index?.cuts ? `with ${index.cuts} cut${index.cuts > 1 ? "s" : ""}` : "";
}

/** @param {{place: {run: string, step: number, image: number}, index?: Index}} maps */
export function placeName({ place, index }) {
  if (index?.ofPictures) return [place.run, cutsPhrase(index), index.images[place.image]?.name ?? `picture ${place.image + 1}`].filter(Boolean).join(", ");
  return `${place.run}, step ${place.step.toLocaleString("en")}, image ${imageNumber(index, place.image)}`;
}
