// @ts-check
/** What must be known to believe the picture: sums, what is hidden, what the method does not see, verdicts. */

import { format, megabytes } from "./colour.js";
import { h, setText, syncChildren } from "./dom.js";
import { sinkShare } from "./measures.js";
import { verdictNotes } from "./verdict.js";
import { placeName, rankOf, tokenName } from "./view.js";

/** @typedef {import("./view.js").Maps} Maps */
/** @typedef {import("./view.js").Shown} Shown */

export class Notes {
  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.list = h("ul");
    this.element = h("section", { class: "notes", "aria-label": "What to know of this picture" }, this.list);
  }

  draw() {
    const { here, pinned, state, stage, store } = this.page;
    const shown = stage?.shown;
    if (!here) return;
    const notes = [...(shown ? sums(here, shown, state) : []), method(here, state, store.state.method !== state.method), ...verdictNotes(here, state)];
    if (here.about.answer && state.answer && shown) notes.push(answer(here, shown, state));
    if (here.index.note) notes.push(here.index.note);
    const said = pinned && stage?.comparison?.said;
    if (said) notes.push(`A is ${placeName(pinned)}. B − A: ${said}.`);
    notes.push(held(here, pinned, here.complete));
    syncChildren(this.list, notes.filter(Boolean), () => h("li"), (item, note) => setText(item, note));
    if (stage) {
      stage.loadAll.hidden = here.complete;
      setText(stage.loadAll, `Load all ${here.layers.length} layers (${megabytes(here.whole)})`);
    }
  }
}

/** @param {Maps} here @param {Shown} shown @param {import("./state.js").State} state */
export function sums(here, shown, state) {
  const percent = state.method !== "relevance";
  const column = state.direction === "to" && state.query !== "pool";
  const head = here.headOf(state);
  const why = state.method === "raw" && !column && (head === "max" || head === "min") ? `: under the ${head === "max" ? "maximum" : "minimum"} of heads, rows do not sum to 100 %` : "";
  const notes = [`${column ? "This column sums to" : "This row sums to"} ${format(shown.total, percent)}${why}.`];
  if (!Number.isFinite(shown.total)) notes.push("Some of this map is not a number: the network gave NaN or infinity at this step.");
  const patches = [...shown.hidden].filter((token) => token >= here.grid.prefix);
  if (state.hide) {
    const named = patches.map((token) => `${tokenName(here.index, token)}${shown.sinks.includes(token) ? "" : " (a sink of A)"}`);
    const list = [here.index.prefix.join(", "), ...named].filter(Boolean).join("; ");
    const share = shown.total > 0 ? shown.hiddenMass / shown.total : 0;
    notes.push(list ? `Left out: ${list}; that hides ${format(share, true)} of the sum. Values are as they were, not rescaled.` : "Nothing is left out: there is no prefix, and no sink is known.");
  } else if (here.grid.prefix) {
    const mass = shown.values.subarray(0, here.grid.prefix).reduce((a, b) => a + b, 0);
    notes.push(`Prefix tokens ${column ? "look here with" : "hold"} ${format(mass, percent)}; their tiles are below the map.`);
  }
  if (!state.hide && shown.sinks.length) notes.push(`Sinks, which get ${sinkShare(here.tokens)} or more in nine of ten of ${here.index.sinks?.images} images: ${shown.sinks.map((sink) => tokenName(here.index, sink)).join("; ")}.`);
  if (state.hide && !here.index.sinks?.layers) notes.push("Which patches are sinks is not known here: it takes four different images of a step to tell them from what an image shows.");
  else if (state.hide && state.method !== "raw" && !here.complete) notes.push("No sink of this map is left out: finding those of all layers takes all layers, and not all are loaded.");
  return notes;
}

/** What the method sees, and what it does not. @param {Maps} here @param {import("./state.js").State} state @param {boolean} wished whether another was */
function method(here, state, wished) {
  const [predicted] = here.about.top[0];
  if (state.method === "relevance") {
    const label = here.about.right ? "" : ` (the label is ${here.about.label})`;
    return `Class-specific: relevance is attention weighted by gradients of the predicted class, ${predicted}${label}. It is shown first because it did best, or among the best, where methods were judged (docs/methods.md); whether it is so here, the verdict says.`;
  }
  const layer = here.layerOf(state) + 1;
  const count = here.layers.length;
  const around = [layer > 1 ? "before" : "", layer < count ? "after" : ""].filter(Boolean).join(" and ");
  const fusion = { mean: "mean", max: "maximum", min: "minimum" }[String(here.headOf(state))];
  const raw = `raw attention of layer ${layer}${around ? `, ${around} which other layers mix tokens` : ""}`;
  const rolled = `rollout of ${layer > 1 ? `layers 1 to ${layer}` : "layer 1"}, each ½ the ${fusion} of heads + ½ identity${fusion === "mean" ? "" : ", rows divided by their sum"}`;
  const instead = wished ? "No relevance was logged at this step, so raw attention is shown. " : "";
  return `${instead}Class-agnostic: ${state.method === "raw" ? raw : rolled}. It does not know which class was predicted, and a patch that is looked at need not be why.`;
}

/** @param {Maps} here @param {Shown} shown @param {import("./state.js").State} state */
function answer(here, shown, state) {
  const entries = Object.entries(here.about.answer ?? {});
  const ofPatches = shown.values.subarray(here.grid.prefix);
  const said = entries.map(([name, patches]) => {
    const mass = patches.reduce((total, patch) => total + ofPatches[patch], 0);
    const best = Math.max(...patches.map((patch) => ofPatches[patch]));
    return `${name} ${format(mass, state.method !== "relevance")}, ${rankOf(ofPatches, best, " patches")}`;
  });
  return `The data set's own answer: ${said.join("; ")}.`;
}

/** @param {Maps} here @param {Maps | null} pinned @param {boolean} complete */
function held(here, pinned, complete) {
  const bytes = here.bytes + (pinned && pinned !== here ? pinned.bytes : 0);
  const loaded = here.layers.some(Boolean) ? `One layer of ${here.layers.length}` : "Relevance alone";
  const missing = complete ? "" : ` ${loaded} is loaded; all layers are ${megabytes(here.whole)}. Rollout and heads of other layers wait for them.`;
  return `The page holds ${megabytes(bytes)} of maps. Values are stored in 8 bits, exact to 0.4 % of their row's largest.${missing}`;
}
