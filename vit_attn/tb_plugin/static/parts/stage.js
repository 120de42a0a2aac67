// @ts-check
/** The pictures side by side: the image, its map or the two that are compared, and the matrix. */

import { format, mapScale, probability } from "../maps/colour.js";
import { compare, mostOf, sameTokens } from "../maps/compare.js";
import { h, setText } from "../drawing/dom.js";
import { Figure } from "./figure.js";
import { Matrix } from "./matrix.js";
import { isByLayer, isClassSpecific, methodLabel, targetWords } from "../maps/methods.js";
import { runLabels } from "../words/names.js";
import { regionsOf } from "../maps/regions.js";
import { cutsPhrase, imageNumber, rankOf, tokenName } from "../maps/view.js";

/** @typedef {import("../maps/view.js").Maps} Maps */
/** @typedef {import("../maps/view.js").Shown} Shown */

export class Stage {
  /** @param {import("../page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.image = new Figure(page, "Image");
    this.a = new Figure(page, "A");
    this.map = new Figure(page, "Map");
    this.change = new Figure(page, "Difference");
    this.matrix = new Matrix(page);
    this.problem = h("p", { class: "missing", hidden: true });
    this.loadAll = h("button", { type: "button", hidden: true, onclick: () => page.loadEverything() });
    this.readout = h("p", { class: "readout", role: "status", "aria-live": "polite" });
    this.figures = h("div", { class: "figures" }, this.image.element, this.a.element, this.map.element, this.change.element, this.matrix.element);
    this.element = h("section", { class: "stage", "aria-label": "Maps" }, this.problem, this.loadAll, this.readout, this.figures);
    /** @type {Shown | null} */
    this.shown = null;
    /** @type {Shown | null} */
    this.shownA = null;
    /** @type {import("../maps/colour.js").Scale | null} of both sides */
    this.scale = null;
    /** @type {import("../maps/compare.js").Comparison | null} */
    this.comparison = null;
  }

  draw() {
    const { here, pinned, state } = this.page;
    if (!here) return;
    const obstacle = here.obstacle(state);
    const stateA = pinned ? { ...state, query: this.queryIn(pinned), target: pinned.possible(state).target } : state;
    const obstacleA = pinned?.obstacle(stateA) ?? "";
    const alike = !pinned || sameTokens(pinned, here); // then the same tokens are left out of both
    const left = alike ? [...new Set([...here.sinks(state), ...(pinned?.sinks(stateA) ?? [])])] : undefined;
    this.shown = obstacle ? null : here.show(state, left);
    this.shownA = pinned && !obstacleA ? pinned.show(stateA, left) : null;
    this.problem.hidden = !obstacle && !obstacleA;
    setText(this.problem, obstacle || (obstacleA && `A: ${obstacleA}`));
    const most = Math.max(mostOf(here, this.shown), pinned ? mostOf(pinned, this.shownA) : 0);
    const scale = mapScale(most, !isClassSpecific(here.index, state.method), here.tokens);
    this.scale = scale;
    this.drawImage(here);
    this.map.draw({ maps: here, title: pinned ? "B" : "Map", detail: pinned ? distinction(here, pinned) : describe(here, state), shown: this.shown, scale: this.shown && scale });
    this.figures.classList.toggle("compare", Boolean(pinned));
    this.a.element.hidden = this.change.element.hidden = !pinned;
    this.comparison = pinned && compare(pinned, here, this.shownA, this.shown, state);
    if (pinned) {
      this.a.draw({ maps: pinned, title: "A", detail: distinction(pinned, here), shown: this.shownA, scale: this.shownA && scale });
      const { change = null, scale: around = null, message = "" } = this.comparison ?? {};
      this.change.draw({ maps: here, title: "B − A", detail: change ? message : "", shown: change, scale: around, missing: change ? "" : message });
    }
    this.matrix.draw(this.shown?.hidden ?? new Set());
    this.drawMarks();
  }

  /** The query in maps that may have another grid of patches than those in which it was chosen. @param {Maps} maps */
  queryIn(maps) {
    const { query, queryGrid } = this.page.store.state;
    return maps.tokenAt(query, queryGrid);
  }

  /** @param {Maps} here */
  drawImage(here) {
    const { about, index, place } = here;
    const [best, chance] = about.top[0] ?? ["", null];
    const others = about.top.slice(1, 3).filter(([, each]) => (each ?? 0) >= 0.001).map(([name, each]) => `${name} ${probability(each)}`).join(", ");
    const sign = about.right === null ? "" : about.right ? " ✓" : " ✗";
    const predicted = best && !index.asks && `predicted: ${best} ${probability(chance)}${sign}${others ? `, then ${others}` : ""}`;
    const detail = [about.name, about.label !== null && `label: ${about.label}`, predicted].filter(Boolean).join(" · ");
    this.image.draw({ maps: here, title: `Image ${imageNumber(index, place.image)}`, detail, shown: null, scale: null });
  }

  /** Query, key and value that are pointed at; -1 stands for the pooled row. */
  pointed() {
    const { here, hover, state } = this.page;
    const tokens = here?.tokens ?? 0;
    const chosen = state.query === "pool" ? -1 : state.query;
    if (!hover || !this.shown || !here) return null;
    if ("key" in hover) {
      const value = this.matrix.values?.[hover.query * tokens + hover.key];
      return value === undefined ? null : { ...hover, value };
    }
    if (hover.token >= tokens) return null;
    const value = this.shown.values[hover.token];
    return this.column ? { query: hover.token, key: chosen, value } : { query: chosen, key: hover.token, value };
  }

  /** Whether a column is shown: the tokens that attend to the chosen one. */
  get column() {
    const { state } = this.page;
    return state.direction === "to" && state.query !== "pool";
  }

  drawMarks() {
    const { here, state } = this.page;
    if (!here) return;
    const accent = getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();
    const pointed = this.pointed();
    const column = this.column;
    const chosen = state.query === "pool" ? -1 : state.query;
    const { query, key } = pointed ?? (column ? { query: -1, key: chosen } : { query: chosen, key: -1 });
    for (const figure of [this.image, this.a, this.map, this.change, ...(this.page.sheet?.enlarged.figures ?? [])]) {
      if (figure.element.hidden || !figure.content) continue;
      const { maps } = figure.content;
      const { grid, about } = maps;
      /** @type {import("../drawing/draw.js").Mark[]} */
      const marks = [];
      for (const { name, patches, isAnswer } of state.groundTruth ? regionsOf(about) : []) {
        patches.forEach((patch, i) => marks.push({ patch, kind: isAnswer ? "answer" : "region", name: i ? undefined : name }));
      }
      const [hovered, main] = (column ? [query, key] : [key, query]).map((token) => (token === chosen ? Number(chosen < 0 ? -1 : this.queryIn(maps)) : maps.tokenAt(token, here.gridName)));
      if (hovered >= 0) marks.push({ patch: hovered - grid.prefix, kind: "hover" });
      if (main >= 0) marks.push({ patch: main - grid.prefix, kind: "query" });
      figure.drawMarks(marks, accent);
      for (const part of this.page.extras.below ?? []) part.drawOver?.(figure.marks, maps);
    }
    this.matrix.drawMarks(query, key, accent);
    this.drawReadout(pointed);
  }

  /** @param {{query: number, key: number, value: number} | null} pointed */
  drawReadout(pointed) {
    const { here, state } = this.page;
    if (!here) return;
    const percent = !isClassSpecific(here.index, state.method);
    const name = (/** @type {number} */ token) => (token < 0 ? "pooled row" : tokenName(here.index, token));
    if (here.index.asks && !here.has(state)) return setText(this.readout, "Asking the network …"); // what is drawn is of the query before
    if (!pointed || !this.shown) {
      return setText(this.readout, "Point at a patch for its value.");
    }
    const { query, key, value } = pointed;
    const parts = [`${name(query)} → ${name(key)}: ${format(value, percent)}`];
    if (this.page.hover && "token" in this.page.hover) {
      parts.push(rankOf(this.shown.values, value));
      const before = this.comparison?.change && this.shownA ? this.shownA.values[this.page.hover.token] : null;
      if (before !== null) parts.push(`A ${format(before, percent)}`, `B − A ${format(value - before, percent)}`);
    }
    setText(this.readout, parts.join(" · "));
  }
}

/** @param {Maps} maps @param {import("../data/state.js").State} state */
export function describe(maps, state) {
  const layer = maps.layerOf(state) + 1;
  const head = maps.headOf(state);
  const heads = typeof head === "number" ? `head ${head + 1}` : `${head} of ${maps.index.heads[layer - 1]} heads`;
  if (!isByLayer(state.method)) return `${methodLabel(maps.index, state.method)}${isClassSpecific(maps.index, state.method) ? ` for ${targetWords(state.target)}` : ""}`;
  if (state.method === "raw") return `layer ${layer}, ${heads}`;
  return `rollout, layers 1–${layer}, ${head} of heads`;
}

/** Step of one side of a comparison, and what else differs from the other. @param {Maps} maps @param {Maps} other */
function distinction({ place, layers, index }, { place: other, layers: others }) {
  const run = place.run === other.run ? "" : runLabels([place.run, other.run])[0];
  const what = index.ofPictures ? cutsPhrase(index) || (place.step === other.step ? "" : "uncut") : `step ${place.step.toLocaleString("en")}`;
  const parts = [what, run, layers.length === others.length ? "" : `${layers.length} layers`, place.image === other.image ? "" : `image ${imageNumber(index, place.image)}`];
  return parts.filter(Boolean).join(" · ");
}
