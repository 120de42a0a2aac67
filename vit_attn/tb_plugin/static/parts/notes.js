// @ts-check
/** Caveats of the view: sums, what is hidden, what the method ignores, comparison with baselines. */

import { LEAST_TIMES, format, megabytes } from "../maps/colour.js";
import { h, setText, syncChildren } from "../drawing/dom.js";
import { faithfulnessNotes } from "../maps/faithfulness.js";
import { helpButton } from "../words/help.js";
import { sinkThreshold } from "../maps/measures.js";
import { hasTarget, isClassSpecific, isHereWords, loggedMethod, targetWords } from "../maps/methods.js";
import { predictedClass } from "../maps/predictions.js";
import { regionsOf } from "../maps/regions.js";
import { INTERPOLATED } from "../maps/smooth.js";
import { placeName, rankOf, tokenName } from "../maps/view.js";

/** @typedef {import("../maps/view.js").Maps} Maps */
/** @typedef {import("../maps/view.js").Shown} Shown */

/** Beginning of the note on what is loaded, which is of the page and not of the view. */
export const HELD = "The page holds";

export class Notes {
  /** @param {import("../page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.list = h("ul");
    const terms = [helpButton("faithfulness", "deletion and insertion"), helpButton("baselines", "baselines"), helpButton("prefix", "prefix tokens"), helpButton("sinks", "sinks"), helpButton("uniformly", "uniform")];
    this.element = h("section", { class: "notes", "aria-label": "Caveats of this view" }, h("div", { class: "head" }, h("h2", {}, "Notes"), ...terms), this.list);
  }

  draw() {
    const { here, pinned, state, stage, store } = this.page;
    const shown = stage?.shown;
    if (!here) return;
    const notes = [...(shown ? sums(here, shown, state) : []), method(here, state, store.state.method), ...faithfulnessNotes(here, state)];
    if (state.groundTruth && shown) notes.push(groundTruth(here, shown, state));
    if (shown && stage?.scale) notes.push(scaleNote(here, stage.scale, shown));
    notes.push(missingTarget(here, store.state));
    if (state.smooth) notes.push(`The map is ${INTERPOLATED}: the network has one value a patch, and what is finer is not measured.`);
    if (here.index.note) notes.push(here.index.note);
    const message = pinned && stage?.comparison?.message;
    if (message) notes.push(`A is ${placeName(pinned)}. B − A: ${message}.`);
    notes.push(loadedNote(here, pinned, here.complete));
    syncChildren(this.list, notes.filter(Boolean), () => h("li"), (item, note) => setText(item, note));
    if (stage) {
      stage.loadAll.hidden = here.complete;
      setText(stage.loadAll, `Load all ${here.layers.length} layers (${megabytes(here.whole)})`);
    }
  }
}

/** @param {Maps} here @param {Shown} shown @param {import("../data/state.js").State} state */
export function sums(here, shown, state) {
  const percent = !isClassSpecific(here.index, state.method);
  const column = state.direction === "to" && state.query !== "pool";
  const head = here.headOf(state);
  const why = state.method === "raw" && !column && (head === "max" || head === "min") ? `: under the ${head === "max" ? "maximum" : "minimum"} of heads, rows do not sum to 100 %` : "";
  const notes = [`${column ? "This column sums to" : "This row sums to"} ${format(shown.total, percent)}${why}.`];
  if (!Number.isFinite(shown.total)) notes.push(`Some values are not numbers: the network gave NaN or infinity${here.index.ofPictures ? "" : " at this step"}.`);
  const patches = [...shown.hidden].filter((token) => token >= here.grid.prefix);
  if (state.hide) {
    const named = patches.map((token) => `${tokenName(here.index, token)}${shown.sinks.includes(token) ? "" : " (a sink of A)"}`);
    const list = [here.index.prefix.join(", "), ...named].filter(Boolean).join("; ");
    const fraction = shown.total > 0 ? shown.hiddenMass / shown.total : 0;
    notes.push(list ? `Left out: ${list}; they hold ${format(fraction, true)} of the sum. The other values are not rescaled.` : "Nothing is left out: there is no prefix, and no sink is known.");
  } else if (here.grid.prefix) {
    const mass = shown.values.subarray(0, here.grid.prefix).reduce((a, b) => a + b, 0);
    notes.push(`Prefix tokens ${column ? "attend to it with" : "hold"} ${format(mass, percent)}; their tiles are below the map.`);
  }
  if (!state.hide && shown.sinks.length) notes.push(`Sinks, which get ${sinkThreshold(here.tokens)} or more in nine of ten of ${here.index.sinks?.images} images: ${shown.sinks.map((sink) => tokenName(here.index, sink)).join("; ")}.`);
  if (state.hide && !here.index.sinks?.layers) notes.push(`Sinks are unknown here: finding tokens that are attended to whatever the image shows takes four different ${here.index.ofPictures ? "pictures" : "images of a step"}.`);
  else if (state.hide && state.method !== "raw" && !here.complete) notes.push("No sink is left out: finding those of this map takes all layers, and not all are loaded.");
  return notes;
}

/** How the method computes its map, and what it ignores. @param {Maps} here @param {import("../data/state.js").State} state @param {string} chosen method, which this step may not have */
function method(here, state, chosen) {
  const target = `${state.target ? targetWords(state.target) : `the predicted class, ${predictedClass(here.about)}`}${here.about.right !== false || state.target === here.about.label ? "" : ` (the true label is ${here.about.label})`}`;
  const logged = loggedMethod(here.index, state.method);
  if (logged) return `${logged.class_specific ? `Class-specific: ${logged.label} for ${target}` : `Class-agnostic: ${logged.label}`}${logged.reference && ` (${logged.reference})`}.${here.index.asks ? "" : ` It ${isHereWords(here.index)} for the pooled row only.`}`;
  if (state.method === "relevance") {
    return `Class-specific: relevance is attention weighted by gradients of ${target}. It is the default because it did best, or among the best, where methods were compared (docs/methods.md); the comparison with baselines tells whether it does here.`;
  }
  const layer = here.layerOf(state) + 1;
  const count = here.layers.length;
  const around = [layer > 1 ? "before" : "", layer < count ? "after" : ""].filter(Boolean).join(" and ");
  const fusion = { mean: "mean", max: "maximum", min: "minimum" }[String(here.headOf(state))];
  const raw = `raw attention of layer ${layer}${around ? `, ${around} which other layers mix tokens` : ""}`;
  const rolled = `rollout of ${layer > 1 ? `layers 1 to ${layer}` : "layer 1"}, each ½ the ${fusion} of heads + ½ identity${fusion === "mean" ? "" : ", rows divided by their sum"}`;
  const missing = chosen === "relevance" ? "relevance" : `map by ${chosen}`;
  const why = here.index.ofPictures ? "This network has no" : "No";
  const instead = chosen === state.method ? "" : `${why} ${missing}${here.index.ofPictures ? "" : " was logged at this step"}, so raw attention is shown. `;
  return `${instead}Class-agnostic: ${state.method === "raw" ? raw : rolled}. It does not depend on the predicted class, and a patch that is attended to need not be the reason for it.`;
}

/** That a class was chosen for which this image has no map. @param {Maps} here @param {import("../data/state.js").State} chosen */
function missingTarget({ index, about }, { method: chosen, target }) {
  if (!target || target === predictedClass(about) || !isClassSpecific(index, chosen) || hasTarget(index, about, chosen, target)) return "";
  if (index.asks) return `This network has no class ${target}, so the map is for the predicted class.`;
  return `No map for ${target} ${isHereWords(index)} for this image, so that for the predicted class is shown.`;
}

/** @param {Maps} here @param {Shown} shown @param {import("../data/state.js").State} state */
function groundTruth(here, shown, state) {
  const ofPatches = shown.values.subarray(here.grid.prefix);
  const parts = regionsOf(here.about).map(({ name, patches, isAnswer }) => {
    const mass = patches.reduce((total, patch) => total + ofPatches[patch], 0);
    const best = Math.max(...patches.map((patch) => ofPatches[patch]));
    return `${name}${isAnswer ? " (answer)" : ""} ${format(mass, !isClassSpecific(here.index, state.method))}, ${rankOf(ofPatches, best, " patches")}`;
  });
  return parts.length ? `Ground truth: ${parts.join("; ")}.` : "";
}

/** Where the colours end, if not at the largest value. @param {Maps} here @param {import("../maps/colour.js").Scale} scale @param {Shown} shown */
export function scaleNote(here, scale, shown) {
  const beyond = here.index.prefix.filter((_, token) => shown.values[token] > scale.high && !shown.hidden.has(token));
  if (beyond.length) return `Colours reach up to ${format(scale.high, scale.percent)}, for the patches; ${beyond.join(", ")} ${beyond.length > 1 ? "have" : "has"} more.`;
  const most = shown.values.reduce((a, b) => Math.max(a, b), 0);
  if (!scale.uniform || most >= scale.high || scale.high > 1.001 * LEAST_TIMES * scale.uniform) return "";
  return `The largest value, ${format(most, true)}, is less than ${LEAST_TIMES} × uniform attention (1/${here.tokens} = ${format(scale.uniform, true)}). Colours reach up to that all the same, so that small differences do not look large.`;
}

/** What is loaded. @param {Maps} here @param {Maps | null} pinned @param {boolean} complete */
function loadedNote(here, pinned, complete) {
  const bytes = here.bytes + (pinned && pinned !== here ? pinned.bytes : 0);
  const loaded = here.layers.some(Boolean) ? `One layer of ${here.layers.length}` : "Relevance only";
  const missing = complete ? "" : ` ${loaded} is loaded; all layers are ${megabytes(here.whole)}. Rollout and heads of other layers need them.`;
  return `${HELD} ${megabytes(bytes)} of maps. Values have 8 bits: they are exact to 0.4 % of the largest of their row.${missing}`;
}
