// @ts-check
/** The user's choices, in one place, kept across reloads. */

/** @typedef {{run: string, step: number, image: number}} Place */
/**
 * @typedef {object} State
 * @property {string} run
 * @property {number} step
 * @property {number} image
 * @property {string} method raw, rollout, relevance, or the name of one that was logged
 * @property {number} layer -1 is the last
 * @property {import("./arithmetic.js").Head} head
 * @property {number | "pool"} query a token, or the row that the network pools
 * @property {string} queryGrid prefix tokens, rows and columns of the network in which the query was chosen; "" if unknown
 * @property {"from" | "to"} direction what the query attends to, or what attends to it
 * @property {boolean} hide leave out prefix and sinks
 * @property {boolean} groundTruth mark the regions that the data set knows
 * @property {boolean} grid lines between patches
 * @property {number} opacity of the map over the image
 * @property {"network" | "entropy" | "distance" | "sink"} sort
 * @property {boolean} common one scale for the whole sheet
 * @property {boolean} follow go to new steps as they come
 * @property {Place | null} pin what is compared with
 * @property {"auto" | "light" | "dark"} theme
 */

/** @type {State} */
export const DEFAULTS = {
  run: "",
  step: -1,
  image: 0,
  method: "relevance", // the best evidence, by docs/methods.md, of the patches that a prediction rests on
  layer: -1,
  head: "mean",
  query: "pool",
  queryGrid: "",
  direction: "from",
  hide: false,
  groundTruth: false,
  grid: true,
  opacity: 0.85,
  sort: "network",
  common: false,
  follow: false,
  pin: null,
  theme: "auto",
};

/** @type {Record<string, (value: any) => boolean>} */
const VALID = {
  method: (value) => typeof value === "string" && value !== "",
  head: (value) => ["mean", "max", "min"].includes(value) || Number.isInteger(value),
  query: (value) => value === "pool" || (Number.isInteger(value) && value >= 0),
  direction: (value) => ["from", "to"].includes(value),
  opacity: (value) => value >= 0 && value <= 1,
  sort: (value) => ["network", "entropy", "distance", "sink"].includes(value),
  pin: (value) => value === null || (typeof value?.run === "string" && Number.isInteger(value.step) && Number.isInteger(value.image)),
  theme: (value) => ["auto", "light", "dark"].includes(value),
};

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
      for (const [name, normal] of Object.entries(DEFAULTS)) {
        const value = stored[name];
        const valid = VALID[name] ?? ((/** @type {any} */ each) => typeof each === typeof normal);
        if (value !== undefined && valid(value)) kept[name] = value;
      }
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
