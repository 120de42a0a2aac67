// @ts-check
/** Questions to a running network: maps of a query that the page cannot compute from what it holds. No DOM in here. */

import { isByLayer, loggedMethod } from "./methods.js";

/** @typedef {import("./view.js").Maps} Maps */
/** @typedef {import("../data/state.js").State} State */
/** @typedef {{method: string, query: number | "pool", target: number | "", layer?: number, fusion?: string}} Question target: class by index, "" for the predicted one; layer: the last one of a rollout */

/** Rows of an image that are kept: going back to a query is at once. */
const MOST_ROWS = 200;

/** The question whose reply is what a state shows; nothing where the page has it, or where no network is asked. @param {Maps} maps @param {State} state as it can be shown of these maps @returns {Question | null} */
export function questionOf(maps, { method, query, target, head, layer, direction }) {
  const { about, index } = maps;
  if (!index.asks || method === "raw" || (direction === "to" && query !== "pool")) return null;
  const logged = loggedMethod(index, method);
  if (logged && !logged.has_query && query !== "pool") return null;
  if (logged && !target && query === "pool" && about.rows?.[method]) return null;
  if ((method === "rollout" && maps.complete) || (method === "relevance" && !target && maps.relevance)) return null;
  const asked = { method, query, target: target ? (index.classes ?? []).indexOf(target) : /** @type {""} */ ("") };
  return isByLayer(method) ? { ...asked, layer: maps.layerOf(/** @type {State} */ ({ layer })), fusion: typeof head === "string" ? head : "mean" } : asked;
}

/** Replies to questions about one image, the oldest left out where they are many. */
export class Replies {
  constructor() {
    /** @type {Map<string, Float32Array | string>} values of all tokens, or why there are none */
    this.kept = new Map();
  }

  /** @param {Question} question @param {Float32Array | string} reply */
  keep(question, reply) {
    this.kept.set(JSON.stringify(question), reply);
    const [oldest] = this.kept.keys();
    if (this.kept.size > MOST_ROWS) this.kept.delete(oldest);
  }

  /** @param {Question} question @returns {Float32Array | string | undefined} */
  to(question) {
    return this.kept.get(JSON.stringify(question));
  }

  /** Forget what failed, so that it is asked again. */
  forgetFailures() {
    for (const [key, reply] of this.kept) if (typeof reply === "string") this.kept.delete(key);
  }
}
