// @ts-check
/** Values of one image for a state, from as few layers as they take; the maps are not kept. */

import { decodeLayers } from "./arithmetic.js";
import { askNetwork } from "../data/loading.js";
import { loggedMethod } from "./methods.js";
import { Maps } from "./view.js";

/** @typedef {import("./view.js").Index} Index */
/** @typedef {import("../data/state.js").State} State */

/** First and last layer that a state's values take, counted with the relevance at the end; nothing where they are in the index. @param {Index} index @param {State} state as it can be shown @param {number} layer @returns {[number, number] | null} */
export function layersNeeded(index, state, layer) {
  const count = index.layers.length;
  if (loggedMethod(index, state.method) || state.target) return null;
  if (index.asks && state.method !== "raw" && (state.direction === "from" || state.query === "pool")) return null; // one row is asked for
  if (state.method === "relevance") return [count, count];
  return state.method === "rollout" ? [0, count - 1] : [layer, layer];
}

/** Bytes of the maps that the values of one image take. @param {Index} index @param {State} state @param {number} layer */
export function bytesNeeded(index, state, layer) {
  const range = layersNeeded(index, state, layer);
  if (!range) return 0;
  const tokens = index.grid[0] * index.grid[1] + index.prefix.length;
  const heads = [...index.heads, Number(index.relevance)].slice(range[0], range[1] + 1);
  return heads.reduce((a, b) => a + b, 0) * tokens * (tokens + 4);
}

/**
 * Values of all tokens.
 * @param {import("../data/loading.js").Source} source
 * @param {import("../data/state.js").Place} place
 * @param {Index} index
 * @param {State} chosen
 */
export async function loadValues(source, place, index, chosen) {
  const maps = new Maps(place, index, Array(index.layers.length).fill(null), null);
  const state = maps.possible(chosen);
  const range = layersNeeded(index, state, maps.layerOf(state));
  if (range) {
    const layers = await decodeLayers(await source.maps(place, ...range));
    for (const [i, layer] of layers.entries()) {
      if (range[0] + i < maps.layers.length) maps.layers[range[0] + i] = layer;
      else maps.relevance = layer;
    }
  }
  await askNetwork(source, maps, state);
  const obstacle = maps.obstacle(state);
  if (obstacle) throw new Error(obstacle);
  return maps.values(state);
}
