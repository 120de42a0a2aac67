// @ts-check
/** What must be known to believe the picture: sums, what is hidden, what the method does not see, verdicts. */

import { format, megabytes } from "./colour.js";
import { h, setText, syncChildren } from "./dom.js";
import { placeName, tokenName } from "./view.js";

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
    const { here, pinned, state, stage } = this.page;
    const shown = stage?.shown;
    if (!here) return;
    const notes = [...(shown ? sums(here, shown, state) : []), method(here, state), verdict(here)];
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
function sums(here, shown, state) {
  const percent = state.method !== "relevance";
  const column = state.direction === "to" && state.query !== "pool";
  const head = here.headOf(state);
  const why = head === "max" || head === "min" ? `: under the ${head} of heads, rows of a layer do not sum to 100 %` : "";
  const notes = [`${column ? "This column sums to" : "This row sums to"} ${format(shown.total, percent)}${percent && !column ? why : ""}.`];
  if (!Number.isFinite(shown.total)) notes.push("Some of this map is not a number: the network's values overflowed at this step.");
  const list = [...(here.grid.prefix ? [here.index.prefix.join(", ")] : []), ...shown.sinks.map((sink) => tokenName(here.index, sink))];
  if (state.hide) {
    const share = shown.total > 0 ? shown.hiddenMass / shown.total : 0;
    notes.push(list.length ? `Left out: ${list.join("; ")}; that hides ${format(share, true)} of the sum. Values are as they were, not rescaled.` : "There is no prefix and no sink to leave out.");
  } else if (here.grid.prefix) {
    const mass = shown.values.subarray(0, here.grid.prefix).reduce((a, b) => a + b, 0);
    notes.push(`Prefix tokens hold ${format(mass, percent)}; their tiles are below the map.`);
  }
  if (!state.hide && shown.sinks.length) notes.push(`Sinks, which get ten times the uniform share or more: ${shown.sinks.map((sink) => tokenName(here.index, sink)).join("; ")}.`);
  return notes;
}

/** @param {Maps} here @param {import("./state.js").State} state */
function method(here, state) {
  if (state.method === "relevance") return `Relevance is weighted by gradients of the predicted class, ${here.about.top[0][0]}.`;
  const what = state.method === "raw" ? "Raw attention of one layer, before and after which other layers mix tokens" : "Rollout multiplies ½ attention + ½ identity of the layers";
  return `Class-agnostic: ${what}. It does not know which class was predicted, and a patch that is looked at need not be why.`;
}

/** @param {Maps} here */
function verdict(here) {
  const found = here.about.verdict;
  if (!found) return "No deletion or insertion verdict was logged for this image, so nothing here says that the map is faithful.";
  const { deletion, insertion, random_deletion: randomDeletion, random_insertion: randomInsertion } = found;
  const better = Number(deletion < randomDeletion) + Number(insertion > randomInsertion);
  const words = ["no better than a random order", "better than a random order on one of two", "better than a random order on both"];
  const number = (/** @type {number} */ value) => value?.toFixed(3) ?? "?";
  return `Deletion ${number(deletion)} (random ${number(randomDeletion)}, lower is better), insertion ${number(insertion)} (random ${number(randomInsertion)}, higher is better): ${words[better]}.`;
}

/** @param {Maps} here @param {Shown} shown @param {import("./state.js").State} state */
function answer(here, shown, state) {
  const entries = Object.entries(here.about.answer ?? {});
  const said = entries.map(([name, patches]) => {
    const mass = patches.reduce((total, patch) => total + shown.values[patch + here.grid.prefix], 0);
    const best = Math.max(...patches.map((patch) => shown.values[patch + here.grid.prefix]));
    const rank = 1 + shown.values.subarray(here.grid.prefix).filter((value) => value > best).length;
    return `${name} ${format(mass, state.method !== "relevance")}, rank ${rank} of ${here.tokens - here.grid.prefix} patches`;
  });
  return `The data set's own answer: ${said.join("; ")}.`;
}

/** @param {Maps} here @param {Maps | null} pinned @param {boolean} complete */
function held(here, pinned, complete) {
  const bytes = here.bytes + (pinned && pinned !== here ? pinned.bytes : 0);
  const missing = complete ? "" : ` One layer of ${here.layers.length} is loaded; all are ${megabytes(here.whole)}. Rollout, relevance and the other layers' heads wait for them.`;
  return `The page holds ${megabytes(bytes)} of maps. Values are stored in 8 bits, exact to 0.4 % of their row's largest.${missing}`;
}
