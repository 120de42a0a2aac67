// @ts-check
/** What the maps show, in one sentence. No DOM in here. */

import { isClassSpecific, isHereWords, loggedMethod, methodLabel } from "../maps/methods.js";
import { predictedClass } from "../maps/predictions.js";
import { cutsPhrase } from "../maps/view.js";

/** @typedef {import("../maps/view.js").Maps} Maps */
/** @typedef {import("../data/state.js").State} State */

/** Class whose logit a class-specific map explains. @param {Maps} maps @param {State} state */
export function targetOf(maps, state) {
  return state.target || predictedClass(maps.about);
}

/** A method's name in a sentence. @param {import("../maps/view.js").Index} index @param {string} method */
export function methodPhrase(index, method) {
  return { raw: "raw attention", rollout: "attention rollout" }[method] ?? methodLabel(index, method);
}

/** What is seen, for a person who has read nothing. @param {Maps} maps @param {State} state as it can be shown of these maps */
export function sentenceOf(maps, state) {
  const cuts = cutsPhrase(maps.index);
  const sentence = sentenceOfMap(maps, state);
  return cuts ? `${sentence.slice(0, -1)}, ${cuts}.` : sentence;
}

/** The same without what is cut in the network. @param {Maps} maps @param {State} state */
function sentenceOfMap(maps, state) {
  const column = state.direction === "to" && state.query !== "pool";
  const query = queryPhrase(maps, state.query);
  if (isClassSpecific(maps.index, state.method)) return classSentence(maps, state, query, column);
  const name = methodPhrase(maps.index, state.method);
  return `${column ? `What attends to ${query}` : `What ${query} attend${plural(maps, state.query) ? "" : "s"} to`}, ${through(maps, state)} (${name}).`;
}

/** What is seen of A and of B; once where it is the same. @param {string} a @param {string} b sentences @param {boolean} [short] whether two sentences that differ in the class alone become one */
export function sentenceOfBoth(a, b, short = false) {
  const inner = (/** @type {string} */ sentence) => sentence[0].toLowerCase() + sentence.slice(1);
  const name = /“[^”]*”/;
  if (short && a !== b && a.replace(name, "") === b.replace(name, "")) return `A and B: ${inner(b).replace(name, () => `${a.match(name)?.[0]} in A, ${b.match(name)?.[0]} in B`)}`;
  return a === b ? `A and B: ${inner(a)}` : `A: ${inner(a).replace(/\.$/, ";")} B: ${inner(b)}`;
}

/** What to do next. @param {Maps} maps @param {State} state */
export function invitation(maps, state) {
  const logged = loggedMethod(maps.index, state.method);
  if (maps.index.asks && !(logged && !logged.has_query)) return invitationToAsk(maps, state);
  if (logged && maps.index.asks) return "Point at a patch for its value. The method has no query: to click patches, choose another.";
  if (logged) return `Point at a patch for its value. ${logged.has_query ? `It ${isHereWords(maps.index)} for this row only` : "The method has no query"}: to click patches, choose raw attention or rollout.`;
  if (state.direction === "to" && state.query !== "pool") return "Click a patch to see what attends to it.";
  return isClassSpecific(maps.index, state.method) ? "Click a patch to see which patches matter to it." : "Click a patch to see what it attends to.";
}

/** What to do next where a running network answers. @param {Maps} maps @param {State} state */
function invitationToAsk(maps, state) {
  if (state.direction === "to" && state.query !== "pool") return "Click a patch to see what attends to it.";
  return isClassSpecific(maps.index, state.method) ? "Click a patch to see which patches matter to it, or a class to see which speak for it." : "Click a patch to see what it attends to.";
}

/** @param {Maps} maps @param {State} state @param {string} query @param {boolean} column */
function classSentence(maps, state, query, column) {
  const target = targetOf(maps, state);
  const predicted = predictedClass(maps.about);
  const whose = target === predicted ? `the prediction “${target}”` : `the class “${target}”, which is not the one predicted`;
  const label = loggedMethod(maps.index, state.method)?.label;
  const name = label ?? "relevance: attention weighted by gradients, through all layers";
  if (state.query === "pool" || (label && !maps.index.asks)) return `Which patches speak for ${whose} (${name}).`;
  return column ? `To which tokens ${query} matters for ${whose} (${name}).` : `Which tokens matter to ${query} for ${whose} (${name}).`;
}

/** The layers that are looked at, and how their heads are fused. @param {Maps} maps @param {State} state */
function through(maps, state) {
  const [layer, count] = [maps.layerOf(state) + 1, maps.layers.length];
  const head = maps.headOf(state);
  if (state.method === "raw") {
    const heads = maps.index.heads[layer - 1];
    const which = typeof head === "number" ? `head ${head + 1}` : heads === 1 ? "its one head" : `the ${word(head)} of its ${heads} heads`;
    return `in layer ${layer} of ${count}, ${which}`;
  }
  if (state.method !== "rollout") return "through the network";
  const layers = layer === count ? "through all layers" : layer === 1 ? "through layer 1" : `through layers 1 to ${layer}`;
  return head === "mean" ? layers : `${layers}, ${word(head)} of heads`;
}

/** @param {import("../maps/arithmetic.js").Head} head */
function word(head) {
  return { mean: "mean", max: "maximum", min: "minimum" }[String(head)] ?? String(head);
}

/** Tokens with weight in what the network pools; nothing if it pools by attention. @param {Maps} maps */
function pooledTokens(maps) {
  return maps.about.pooled || maps.about.pooled_relevance ? null : [...maps.index.pooled.keys()].filter((token) => maps.index.pooled[token] > 0);
}

/** Whether the query is several tokens in grammar. @param {Maps} maps @param {number | "pool"} query */
function plural(maps, query) {
  const pooled = query === "pool" && pooledTokens(maps);
  return Boolean(pooled && pooled.length > 1);
}

/** @param {Maps} maps @param {number | "pool"} query */
function queryPhrase(maps, query) {
  const { prefix, grid } = maps.index;
  if (query === "pool") {
    const pooled = pooledTokens(maps);
    if (!pooled) return "the network's pooling attention";
    if (pooled.every((token) => token < prefix.length)) return pooled.map((token) => tokenPhrase(prefix[token])).join(" and ");
    return pooled.some((token) => token < prefix.length) ? "all tokens, averaged," : "the patches, averaged,";
  }
  if (query < prefix.length) return tokenPhrase(prefix[query]);
  const patch = query - prefix.length;
  return `the patch in row ${Math.floor(patch / grid[1]) + 1}, column ${(patch % grid[1]) + 1}`;
}

/** @param {string} name of a prefix token */
function tokenPhrase(name) {
  return /^R\d+$/.test(name) ? `register ${name}` : `the ${name} token`;
}
