// @ts-check
/** The user's choices, in one place, kept across reloads. */

/** @typedef {{run: string, step: number, image: number}} Place */
/**
 * @typedef {object} State
 * @property {string} run
 * @property {number} step
 * @property {number} image
 * @property {string} method raw, rollout, relevance, or the name of one that was logged
 * @property {string} target class that a class-specific map is for; "" is the predicted one
 * @property {number} layer -1 is the last
 * @property {import("../maps/arithmetic.js").Head} head
 * @property {number | "pool"} query a token, or the row that the network pools
 * @property {string} queryGrid prefix tokens, rows and columns of the network in which the query was chosen; "" if unknown
 * @property {number | "most"} key the token whose weight is explained; "most" is the one that gets most
 * @property {"from" | "to"} direction what the query attends to, or what attends to it
 * @property {boolean} hide leave out prefix and sinks
 * @property {boolean} groundTruth mark the regions that the data set knows
 * @property {boolean} grid lines between patches
 * @property {boolean} smooth interpolate between patches
 * @property {number} opacity of the map over the image
 * @property {"network" | "entropy" | "distance" | "sink"} sort
 * @property {boolean} common one scale for the whole sheet
 * @property {boolean} wrong show wrong predictions only
 * @property {"" | "colours" | "images" | "curves" | "channels"} view the open one of the further views
 * @property {number[]} colours heads that have a colour; none stands for the first ones
 * @property {boolean} follow go to new steps as they come
 * @property {Place | null} pin what is compared with
 * @property {boolean} withSheet draw all heads into the saved picture
 * @property {"auto" | "light" | "dark"} theme
 */

/** Heads that can have a colour: more hues are not told apart. */
export const MOST_COLOURS = 5;

/** @type {State} */
export const DEFAULTS = {
  run: "",
  step: -1,
  image: 0,
  method: "relevance", // the best evidence, by docs/methods.md, of the patches that a prediction rests on
  target: "",
  layer: -1,
  head: "mean",
  query: "pool",
  queryGrid: "",
  key: "most",
  direction: "from",
  hide: false,
  groundTruth: false,
  grid: true,
  smooth: false,
  opacity: 0.85,
  sort: "network",
  common: false,
  wrong: false,
  view: "",
  colours: [],
  follow: false,
  pin: null,
  withSheet: false,
  theme: "auto",
};

const isIndex = (/** @type {any} */ value) => Number.isSafeInteger(value) && value >= 0;
const oneOf = (/** @type {any[]} */ ...values) => (/** @type {any} */ value) => values.includes(value);

/** @type {Record<string, (value: any) => boolean>} */
const VALID = {
  step: (value) => Number.isSafeInteger(value) && value >= -1,
  image: isIndex,
  method: (value) => typeof value === "string" && value !== "",
  layer: (value) => Number.isSafeInteger(value) && value >= -1,
  head: (value) => ["mean", "max", "min"].includes(value) || isIndex(value),
  query: (value) => value === "pool" || isIndex(value),
  key: (value) => value === "most" || isIndex(value),
  direction: oneOf("from", "to"),
  opacity: (value) => value >= 0 && value <= 1,
  sort: oneOf("network", "entropy", "distance", "sink"),
  view: oneOf("", "colours", "images", "curves", "channels"),
  colours: (value) => Array.isArray(value) && value.length <= MOST_COLOURS && value.every(isIndex) && new Set(value).size === value.length,
  pin: (value) => value === null || (typeof value?.run === "string" && isIndex(value.step) && isIndex(value.image)),
  theme: oneOf("auto", "light", "dark"),
};

/** Whether a value can stand in the state under a name. @param {string} name @param {any} value */
export function isValid(name, value) {
  const valid = VALID[name] ?? ((/** @type {any} */ each) => typeof each === typeof (/** @type {any} */ (DEFAULTS)[name]));
  return Object.hasOwn(DEFAULTS, name) && valid(value);
}

/** The state, its listeners, and the storage where it is kept. */
export class Store {
  /** @param {string} key of the storage @param {Storage | null} storage */
  constructor(key, storage) {
    this.key = key;
    this.storage = storage;
    /** @type {State} */
    this.state = { ...DEFAULTS, ...this.read() };
    /** @type {((changed: Set<string>) => void)[]} */
    this.listeners = [];
  }

  /** The stored state, without what is not of this version. */
  read() {
    /** @type {Record<string, any>} */
    const kept = {};
    try {
      const stored = JSON.parse(this.storage?.getItem(this.key) ?? "{}");
      for (const name of Object.keys(DEFAULTS)) if (stored[name] !== undefined && isValid(name, stored[name])) kept[name] = stored[name];
    } catch {
      // a corrupt or forbidden storage: begin with the defaults
    }
    return kept;
  }

  /** @param {Partial<State>} change */
  set(change) {
    const changed = new Set(Object.keys(change).filter((name) => /** @type {any} */ (change)[name] !== /** @type {any} */ (this.state)[name]));
    if (!changed.size) return;
    this.state = { ...this.state, ...change };
    try {
      this.storage?.setItem(this.key, JSON.stringify(this.state));
    } catch {
      // full or forbidden: the view works without
    }
    for (const listener of this.listeners) listener(changed);
  }
}
