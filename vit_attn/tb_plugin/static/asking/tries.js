// @ts-check
/** What "Try this map" and "Judge this map" ask of the server, and their replies in words. No DOM in here. */

import { relation } from "../maps/faithfulness.js";
import { loggedMethod } from "../maps/methods.js";

/** @typedef {import("../maps/view.js").Maps} Maps */
/** @typedef {import("../data/state.js").State} State */
/** @typedef {{patches: number[], logit: number, probability: number}} Effect */
/** @typedef {{ranked: Effect, random: Effect[], mean: {logit: number, probability: number}, margin: {logit: number, probability: number}, target: number, method: string, verdict: "better" | "worse" | "no measurable difference", said: string[]}} Tried */

/** The method by which the server has the map that is shown, or why it has none. @param {Maps} maps @param {State} state as it can be shown @returns {{method: string} | {problem: string}} */
export function askedMethod(maps, state) {
  if (state.direction === "to" && state.query !== "pool") return { problem: "Choose “attends to”: what attends to a token ranks no patches of its own." };
  if (state.method === "relevance" || loggedMethod(maps.index, state.method)) return { method: state.method };
  const [layer, head] = [maps.layerOf(state), maps.headOf(state)];
  const last = layer === maps.layers.length - 1;
  if (state.method === "rollout") return last ? { method: { mean: "rollout", max: "rollout_max", min: "rollout_min" }[String(head)] ?? "rollout" } : { problem: "Choose the last layer: only rollout through all layers can be tried." };
  return last && head === "mean" ? { method: "last_layer" } : { problem: "Choose the last layer and the mean of its heads, or another method: raw attention can be tried of these only." };
}

/** Why the map that is shown is not judged, or nothing: only maps of the pooled row for the predicted class are. @param {State} state */
export function judgeProblem(state) {
  if (state.query !== "pool") return "Go back to the pooled row: only its map is judged.";
  return state.target ? "Go back to the predicted class: only its map is judged." : "";
}

/** Forwards that judging takes, as the server counts them. @param {number} methods */
export function judgingForwards(methods) {
  return 2 + 7 * (2 * (methods + 1) + 8);
}

/** Where changes stand on a line from the lowest to the highest, in per cent; 0 is on the line. @param {Tried} tried */
export function positions({ ranked, random, mean, margin }) {
  const all = [0, ranked.logit, mean.logit - margin.logit, mean.logit + margin.logit, ...random.map(({ logit }) => logit)];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const at = (/** @type {number} */ value) => (high > low ? 3 + (94 * (value - low)) / (high - low) : 50);
  return { zero: at(0), ranked: at(ranked.logit), random: random.map(({ logit }) => at(logit)), from: at(mean.logit - margin.logit), to: at(mean.logit + margin.logit) };
}

const WORDS = { better: "better than", worse: "worse than", same: "no measurable difference from", unknown: "not comparable with" };

/** One line for each judged method: its numbers, and how it compares. @param {import("../maps/faithfulness.js").Measures} judged by method and measure */
export function judgedLines(judged) {
  return Object.entries(judged).map(([label, { deletion, insertion }]) => ({ label, deletion: judgedMeasure(deletion, false), insertion: judgedMeasure(insertion, true) }));
}

/** @param {import("../maps/faithfulness.js").Values} values @param {boolean} higher whether higher is better */
function judgedMeasure([value, random, margin, centre, centreMargin], higher) {
  const relations = [relation(value, random, margin, higher), relation(value, centre, centreMargin, higher)];
  const words = relations[0] === relations[1] ? `${WORDS[relations[0]]} random and centre first` : `${WORDS[relations[0]]} random, ${WORDS[relations[1]]} centre first`;
  return { value: value?.toFixed(3) ?? "not a number", words };
}
