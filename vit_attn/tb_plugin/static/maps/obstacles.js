// @ts-check
/** Why a map or a matrix cannot be shown. No DOM in here. */

import { isHereWords, loggedMethod } from "./methods.js";

/** @typedef {import("./view.js").Maps} Maps */
/** @typedef {import("../data/state.js").State} State */

/** Above this many tokens the matrix of a rollout is not computed: it costs N³ a layer. */
export const MATRIX_TOKENS = 300;

/** Why the state's method cannot be shown of these maps, or nothing. @param {Maps} maps @param {State} state */
export function obstacleOf(maps, state) {
  const { index } = maps;
  if (state.query !== "pool" && state.query >= maps.tokens) return `This network has ${maps.tokens} tokens, fewer than the one in which the query was chosen: choose another.`;
  if (index.asks) return obstacleToAsking(maps, state);
  if (state.method === "relevance" && !maps.relevance) return index.relevance ? "The relevance is not loaded." : index.ofPictures ? "This network has no relevance." : "No relevance was logged for this step.";
  if (state.target && state.query !== "pool") return `For ${state.target}, which is not the predicted class, ${index.ofPictures ? "this file has the map of the pooled row only" : "the map of the pooled row was logged only"}. Choose the pooled row, or the predicted class.`;
  const logged = loggedMethod(index, state.method);
  if (logged && state.query !== "pool") return `${logged.label} ${isHereWords(index)} for the pooled row only${logged.has_query ? "" : ": the method has no query"}. Choose the pooled row, or another method.`;
  if (state.method === "rollout" && !maps.complete) return "Rollout needs all layers, and not all are loaded.";
  return state.method === "raw" && !maps.layers[maps.layerOf(state)] ? "This layer is not loaded." : "";
}

/** The same where a running network is asked. @param {Maps} maps @param {State} state */
function obstacleToAsking(maps, state) {
  const label = askedLabel(maps, state);
  const logged = loggedMethod(maps.index, state.method);
  if (logged && !logged.has_query && state.query !== "pool") return `${label} has no query: one map is of the whole network. Choose the pooled row, or another method.`;
  if (label && state.direction === "to" && state.query !== "pool") return `${label} is computed for what a query attends to. Choose “attends to”, or another method.`;
  const question = maps.question(state);
  const reply = question && maps.replies.to(question);
  if (question && reply === undefined) return "Asking the network …";
  if (typeof reply === "string") return reply;
  return state.method === "raw" && !maps.layers[maps.layerOf(state)] ? "This layer is not loaded." : "";
}

/** Name of a map that has no matrix, since the network is asked for one row of it at a time. @param {Maps} maps @param {State} state */
function askedLabel({ index, complete, relevance }, { method, target }) {
  const logged = loggedMethod(index, method)?.label;
  if (logged) return logged[0].toUpperCase() + logged.slice(1);
  if (target && method === "relevance") return `Relevance for ${target}`;
  if (method === "relevance") return relevance ? "" : "Relevance";
  return method === "rollout" && !complete ? "Rollout" : "";
}

/** Why there is no matrix, or nothing. @param {Maps} maps @param {State} state */
export function matrixObstacleOf(maps, state) {
  const { index, tokens } = maps;
  const asked = index.asks ? askedLabel(maps, state) : "";
  if (asked) return `${asked} is computed for one query at a time, so there is no matrix of all ${tokens}.`;
  const label = loggedMethod(index, state.method)?.label ?? (state.target && `The map for ${state.target}`);
  if (label) return `${label} ${isHereWords(index)} for the pooled row only, so it has no matrix.`;
  return state.method === "rollout" && tokens > MATRIX_TOKENS ? `The rollout of all ${tokens} tokens at once is not computed; each one is, when you click it.` : "";
}
