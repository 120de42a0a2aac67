// @ts-check
/** Deletion and insertion of the map that is shown, compared with baselines. No DOM in here. */

import { loggedMethod } from "./methods.js";

/** @typedef {import("./view.js").Maps} Maps */
/** @typedef {import("../data/state.js").State} State */
/** @typedef {(number | null)[]} Values value, random orders' mean, margin, centre first's value, margin */
/** @typedef {Record<string, Record<string, Values>>} Measures by method and measure */
/** @typedef {"better" | "same" | "worse" | "unknown"} Relation */

/** @type {[string, boolean][]} measures, and whether higher is better */
const MEASURES = [["deletion", false], ["insertion", true]];
const WORDS = { better: "better than", same: "no measurable difference from", worse: "worse than", unknown: "not comparable with" };
const BOTH = { better: "better than both", same: "no measurable difference from either", worse: "worse than both", unknown: "not comparable, since the network gave NaN or infinity" };
/** @type {Record<string, string>} how a sentence names what the page computes, by the label in the log */
const SENTENCE_NAMES = { "relevance": "relevance", "last layer": "the last layer, mean of heads", "last layer, pooled": "the last layer, mean of heads, weighed as the pool by attention does", "rollout, mean": "rollout, mean of heads", "rollout, max": "rollout, maximum of heads", "rollout, min": "rollout, minimum of heads" };
/** Label of the last layer's rows, mixed as a pool by attention weighs them. */
const POOLED_LAYER = "last layer, pooled";
const CHANCE = " (±: margin that a difference must exceed, 95 % and at least 0.01)";
const FAITHFUL = "So it ranks patches as this network uses them, whether the network is right or not.";
const UNFAITHFUL = "A map that is not better than both has shown nothing.";

/** Label under which the map of a state is compared with baselines; null if it never is. @param {Maps} maps @param {State} state */
export function comparedAs(maps, state) {
  if (state.query !== "pool" || state.target) return null;
  if (state.method === "relevance") return "relevance";
  const logged = loggedMethod(maps.index, state.method);
  if (logged) return logged.label;
  if (maps.layerOf(state) !== maps.layers.length - 1) return null;
  const head = maps.headOf(state);
  if (state.method === "rollout") return `rollout, ${head}`;
  if (head !== "mean") return null;
  return maps.index.judged?.methods[POOLED_LAYER] ? POOLED_LAYER : "last layer"; // else the pool's own row has that name
}

/** Relation of a value to a baseline; differences within the margin count as none. @param {number | null} value @param {number | null} baseline @param {number | null} margin @param {boolean} higher @returns {Relation} */
export function relation(value, baseline, margin, higher) {
  if (value === null || baseline === null || margin === null) return "unknown";
  const gain = higher ? value - baseline : baseline - value;
  return Math.abs(gain) <= margin ? "same" : gain > 0 ? "better" : "worse";
}

/** @param {Maps} maps @param {State} state @returns {string[]} */
export function faithfulnessNotes(maps, state) {
  const label = comparedAs(maps, state);
  const { judged } = maps.index;
  const earlier = maps.about.verdict;
  if (!label && maps.index.asks) return ["Not compared with baselines: only maps of the pooled row for the predicted class are."];
  if (!label) return [`Not compared with baselines: deletion and insertion are measured for the pooled row and the predicted class only, by relevance, by the last layer's mean of heads, by rollout through all layers, and by ${maps.index.ofPictures ? "the further methods" : "methods that were logged"}.`];
  if (!judged && earlier && label === "relevance") return [earlierComparison(earlier)];
  const overall = judged?.methods[label];
  const name = SENTENCE_NAMES[label] ?? label;
  if ((!judged || !overall) && maps.index.asks) return [`Not compared with baselines: nothing here says yet that ${name} shows what the network uses. Cut what it ranks first, and see.`];
  if (!judged || !overall) return [`Not compared with baselines: deletion and insertion of ${name} ${maps.index.ofPictures ? "are not in this file" : "were not logged at this step"}, so nothing here says that the map is faithful.`];
  const whole = state.hide ? ", nothing left out" : "";
  const notes = [];
  const [one, many] = [maps.about.judged?.[label], judged.images > 1];
  if (many || !one) notes.push(`Comparison with baselines of ${name}${whole}, over ${judged.images} images with ${judged.orders} random orders each${CHANCE}: ${measured(overall)}`);
  if (one) notes.push(`${many ? "The same for this image only" : `Comparison with baselines of ${name}${whole}, for this image with ${judged.orders} random orders${CHANCE}`}: ${measured(one)}`);
  return notes;
}

/** @param {Record<string, Values>} measures */
function measured(measures) {
  const found = MEASURES.map(([measure, higher]) => {
    const [value, random, randomMargin, centre, centreMargin] = measures[measure];
    const relations = [relation(value, random, randomMargin, higher), relation(value, centre, centreMargin, higher)];
    const beside = `random ${number(random)} ± ${number(randomMargin)}, centre first ${number(centre)} ± ${number(centreMargin)}`;
    return { better: relations.every((each) => each === "better"), text: `${measure} ${number(value)} (${higher ? "higher" : "lower"} is better; ${beside}): ${words(relations)}` };
  });
  return `${found.map(({ text }) => text).join("; ")}.${found.every(({ better }) => better) ? ` ${FAITHFUL}` : ` ${UNFAITHFUL}`}`;
}

/** @param {Relation[]} relations to random orders and to centre first */
function words([random, centre]) {
  return random === centre ? BOTH[random] : `${WORDS[random]} random, ${WORDS[centre]} centre first`;
}

/** The comparison that earlier versions logged. @param {Record<string, number | null>} earlier */
function earlierComparison(earlier) {
  const pair = (/** @type {string} */ name) => `${name} ${number(earlier[name])}, random ${number(earlier[`random_${name}`])}`;
  return `Logged by an earlier version, for relevance and one random order: ${pair("deletion")}; ${pair("insertion")}. A single order has no spread, so whether the difference exceeds chance is unknown.`;
}

/** @param {number | null | undefined} value */
function number(value) {
  return value?.toFixed(3) ?? "not a number";
}
