// @ts-check
/** What is loaded of an image at a step. */

import { decodeLayers } from "../maps/arithmetic.js";
import { Maps, imageNumber } from "../maps/view.js";

/** @typedef {import("./state.js").Place} Place */
/** @typedef {import("./state.js").State} State */
/** @typedef {import("../maps/view.js").Index} Index */
/** @typedef {import("./source.js").ServerSource | import("./source.js").EmbeddedSource | import("./live_source.js").LiveSource} Source */

/** Above this many bytes of an image, only the layer that is shown is loaded. */
export const LOAD_BYTES = 48e6;

/**
 * Maps of an image: all layers, or where these are many bytes the one that a state shows.
 * @param {Source} source
 * @param {Place} place
 * @param {Index} index
 * @param {State} state
 * @param {boolean} everything whether more than LOAD_BYTES may be loaded
 */
export async function loadMaps(source, place, index, state, everything) {
  const count = index.layers.length;
  const tokens = index.grid[0] * index.grid[1] + index.prefix.length;
  const bytes = (index.heads.reduce((a, b) => a + b, 0) + Number(index.relevance)) * tokens * (tokens + 4);
  const maps = new Maps(place, index, Array(count).fill(null), null);
  maps.whole = bytes;
  const all = bytes <= LOAD_BYTES || everything;
  const only = maps.possible(state).method === "relevance" ? count : maps.layerOf(state);
  const [first, last] = all ? [0, count] : [only, only];
  const layers = await decodeLayers(await source.maps(place, first, last));
  const expected = all ? count + Number(index.relevance) : 1;
  if (layers.length !== expected || layers.some((layer) => layer.tokens !== tokens)) {
    throw new Error(`Corrupt maps of image ${imageNumber(index, place.image)} at step ${place.step}: ${layers.length} of ${expected} layers, ${layers[0]?.tokens} of ${tokens} tokens.`);
  }
  if (index.relevance && (all || only === count)) maps.relevance = layers.pop() ?? null;
  for (const [i, layer] of layers.entries()) maps.layers[first + i] = layer;
  return maps;
}

/**
 * Ask the running network for what a state shows, if these maps do not have it; a failure is kept beside the replies.
 * @param {Source} source
 * @param {Maps} maps
 * @param {State} state
 */
export async function askNetwork(source, maps, state) {
  const question = maps.question(maps.possible(state));
  if (!question || !("row" in source) || maps.replies.to(question) !== undefined) return;
  const reply = await source.row(maps.place, question).catch((error) => (error instanceof Error ? error.message : String(error)));
  const complete = typeof reply === "string" || reply.length === maps.tokens;
  maps.replies.keep(question, complete ? reply : `The network answered with ${reply.length} of ${maps.tokens} tokens.`);
}

/** Why the network has not answered what a state asks, or nothing. @param {Maps} maps @param {State} state */
export function failureOf(maps, state) {
  const question = maps.question(maps.possible(state));
  const reply = question && maps.replies.to(question);
  return typeof reply === "string" ? reply : "";
}

/** @param {string} url @returns {Promise<HTMLImageElement>} */
export async function loadImage(url) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    throw new Error(`The picture cannot be read: GET ${url}`);
  }
  return image;
}

/** The requested step, or the last one before it; the last of all if none was requested. @param {number[]} steps @param {number} wanted */
export function nearestStep(steps, wanted) {
  if (wanted < 0) return steps[steps.length - 1];
  return steps.filter((step) => step <= wanted).pop() ?? steps[0];
}
