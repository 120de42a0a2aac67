// @ts-check
/** Why a weight is high: query and key of two tokens channel by channel, their products, the score, and the weight. */

import { rowOf } from "../maps/arithmetic.js";
import { niceTicks } from "../drawing/axes.js";
import { format, mapScale } from "../maps/colour.js";
import { h, segmented, setAttribute, setText, syncChildren } from "../drawing/dom.js";
import { paintImage } from "../drawing/draw.js";
import { PatchGrid } from "./patch_grid.js";
import { Picker } from "./picker.js";
import { byInfluence, compareWeights, decodeQueriesKeys, explainScore, roundingOf } from "../maps/queries_keys.js";
import { svg } from "../drawing/svg.js";
import { imageNumber, rankOf, tokenName } from "../maps/view.js";

/** @typedef {import("../maps/queries_keys.js").QueriesKeys} QueriesKeys */
const [ROW_HEIGHT, ROW_GAP, BARS_LEFT, BARS_RIGHT] = [84, 30, 54, 8];
/** Width of the bars where the page is as wide, and the least. */
const [MOST_WIDTH, LEAST_WIDTH] = [860, 280];

export class Channels {
  /** @param {import("../page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.of = "";
    /** @type {QueriesKeys | null} */
    this.layer = null;
    this.problem = "";
    this.order = "channel";
    /** @type {{key: number} | null} */
    this.shown = null;
    this.picker = new Picker(page, true);
    this.key = h("select", { "aria-label": "Key", onchange: () => page.store.set({ key: this.key.value === "most" ? "most" : Number(this.key.value) }) });
    this.sort = segmented("Order of the channels", [["channel", "by channel"], ["product", "by product"]], (order) => { this.order = order; this.draw(); });
    this.map = new PatchGrid("Choose the key", (patch) => this.point(patch), (patch) => page.store.set({ key: patch + this.map.grid.prefix }));
    this.text = h("p", { class: "says" });
    this.sum = h("p", { class: "sum", role: "status" });
    this.bars = svg("svg", { class: "bars", role: "img" });
    this.content = h("div", { class: "beside" },
      h("figure", {}, h("figcaption", {}, "Weights of this head: click the key"), this.map.element), h("div", { class: "explained" }, this.sum, this.sort.element));
    this.content.lastElementChild?.append(this.bars);
    this.element = h("div", {}, this.text, h("div", { class: "picker" }, this.picker.element, h("label", {}, "Key ", this.key)), this.content);
  }

  /** The query whose weights are explained; -1 where it is no single token. */
  get query() {
    const { here, state } = this.page;
    if (state.query !== "pool") return here && state.query < here.tokens ? state.query : -1;
    const pooled = here?.index.pooled ?? [];
    return !here?.about.pooled && pooled.filter(Boolean).length === 1 ? pooled.findIndex(Boolean) : -1;
  }

  /** Why nothing is explained, or nothing. */
  obstacle() {
    const { here, state } = this.page;
    if (!here) return " ";
    if (!here.about.queries_keys) {
      const written = here.index.images.flatMap(({ queries_keys: has }, i) => (has ? [imageNumber(here.index, i)] : []));
      if (here.index.ofPictures) return "Queries and keys are not in this file: they could not be recorded, or it would have been larger than allowed.";
      return written.length ? `Queries and keys were logged for image ${written.join(", ")} only: choose one of them.` : "Queries and keys were not logged at this step: an earlier version of vit_attn wrote it, or their logging was turned off.";
    }
    if (this.query < 0) return "What this network pools is a mix of tokens: click a patch, whose query is then explained.";
    if (!here.layers[here.layerOf(state)]) return "This layer is not loaded: load all layers above.";
    if (this.layer && !(this.layer.queries.some(Boolean) && this.layer.keys.some(Boolean))) return "This layer computes its score in another way than from a product of query and key, as additive attention does: no channel says why a weight is high.";
    return this.problem;
  }

  draw() {
    const { here, state } = this.page;
    if (!here) return;
    this.picker.draw();
    this.sort.update(this.order);
    const layer = here.layerOf(state);
    const of = `${here.place.run} ${here.place.step} ${here.place.image} ${layer}`;
    if (here.about.queries_keys && of !== this.of) this.load(of, here.place, layer);
    const obstacle = this.obstacle();
    const ready = !obstacle && this.layer;
    this.content.hidden = !ready;
    this.key.disabled = !ready;
    setText(this.text, obstacle || (!this.layer ? "Loading …" : here.index.score_scale?.[layer] == null ? "This layer computes its score in another way than scale · q·k: the bars show query and key, and explain no weight." : "The score of a query and a key is the sum of their products, channel by channel, times a scale; softmax over all keys makes it a weight. Channels with a long bar in the third row are why the weight is high or low."));
    if (ready && this.layer) this.show(this.layer, layer);
  }

  /** @param {string} of @param {import("../data/state.js").Place} place @param {number} layer */
  async load(of, place, layer) {
    [this.of, this.layer, this.problem] = [of, null, ""];
    try {
      const found = decodeQueriesKeys(await this.page.source.queriesKeys(place, layer));
      if (this.of === of) this.layer = found;
    } catch (error) {
      if (this.of === of) this.problem = `Queries and keys cannot be read: ${error instanceof Error ? error.message : error}`;
    }
    if (this.of === of) this.page.drawView();
  }

  /** @param {QueriesKeys} layer @param {number} number */
  show(layer, number) {
    const { here, state, pictures } = this.page;
    if (!here) return;
    const head = this.picker.chosenHead;
    const maps = /** @type {import("../maps/arithmetic.js").Layer} */ (here.layers[number]);
    const weights = rowOf(maps, head, this.query);
    const ranked = [...weights.keys()].sort((a, b) => weights[b] - weights[a]);
    const key = state.key === "most" || state.key >= here.tokens ? ranked[0] : state.key;
    this.fillKeys(ranked, weights, state.key === "most" || state.key >= here.tokens);
    const patches = weights.subarray(here.grid.prefix);
    this.map.shape(here.grid);
    const scale = mapScale(patches.reduce((a, b) => (b > a ? b : a), 0), true, here.tokens);
    paintImage(this.map.base, here.grid, pictures.get(here) ?? null, { values: patches, hidden: new Set(), scale, opacity: state.opacity }, state.grid);
    this.shown = { key };
    this.point(null);
    const explained = explainScore(layer, head, this.query, key, here.index.score_scale?.[number] ?? null);
    setText(this.sum, this.sentence(explained, weights, key, here.index.score_scale?.[number] ?? null, roundingOf(maps, head, this.query, key)));
    this.drawBars(explained, tokenName(here.index, this.query), tokenName(here.index, key));
  }

  /** @param {number[]} ranked @param {Float32Array} weights @param {boolean} most whether the first is chosen, whichever it is */
  fillKeys(ranked, weights, most) {
    const { here, state } = this.page;
    if (!here) return;
    const named = ranked.map((token) => ({ value: String(token), text: `${tokenName(here.index, token)} · ${format(weights[token], true)}` }));
    syncChildren(this.key, [{ value: "most", text: `the one with most: ${named[0].text}` }, ...named], () => h("option"), (option, { value, text }) => {
      option.value = value;
      setText(option, text);
    });
    this.key.value = most ? "most" : String(state.key);
  }

  /** @param {number | null} patch */
  point(patch) {
    const { here } = this.page;
    if (!here || !this.shown) return;
    const { prefix } = here.grid;
    /** @type {import("../drawing/draw.js").Mark[]} */
    const marks = [{ patch: this.shown.key - prefix, kind: "answer", name: "key" }];
    if (patch !== null) marks.push({ patch, kind: "hover" });
    if (this.query >= prefix) marks.push({ patch: this.query - prefix, kind: "query", name: "query" });
    this.map.drawMarks(marks);
  }

  /** @param {import("../maps/queries_keys.js").Explained} explained @param {Float32Array} weights @param {number} key @param {number | null} scale @param {number} rounding of the logged weight */
  sentence({ dot, score, weight, range, products }, weights, key, scale, rounding) {
    const { here } = this.page;
    if (!here) return "";
    const minus = (/** @type {number} */ value) => value.toPrecision(3).replace("-", "−");
    const best = byInfluence(products).slice(0, 3).map((channel) => `${channel + 1} (${minus(products[channel])})`).join(", ");
    const logged = `${here.index.ofPictures ? "weight of the map" : "logged weight"} ${format(weights[key], true)}, ${rankOf(weights, weights[key])} keys`;
    const most = `Most comes from channel${products.length > 1 ? "s" : ""} ${best}.`;
    if (scale === null || score === null || weight === null || range === null) return `${tokenName(here.index, this.query)} → ${tokenName(here.index, key)}: the ${products.length} products sum to ${minus(dot)}. This layer computes its score in another way than scale · q·k, so no weight follows from it; ${logged}. ${most}`;
    return `${tokenName(here.index, this.query)} → ${tokenName(here.index, key)}: the ${products.length} products sum to ${minus(dot)}; × scale ${minus(scale)} = score ${minus(score)}; softmax over ${here.tokens} keys: ${format(weight, true)}; ${logged}. ${this.agreement(weight, range, weights[key], rounding)}${most}`;
  }

  /** @param {number} weight @param {[number, number]} range @param {number} logged @param {number} rounding */
  agreement(weight, range, logged, rounding) {
    const found = compareWeights(weight, range, logged, rounding);
    if (found === "alike") return "";
    if (found === "rounded") return `They differ by no more than rounding: with exact queries and keys the softmax may be ${format(range[0], true)} to ${format(range[1], true)}, and the logged weight is exact to ${format(rounding, true)}. `;
    return "They differ by more than rounding: a mask or a bias is added to the score and is not shown here, or the weight is no softmax of it, as in hard attention. ";
  }

  /** @param {import("../maps/queries_keys.js").Explained} explained @param {string} query @param {string} key */
  drawBars({ q, k, products }, query, key) {
    const order = this.order === "product" ? byInfluence(products) : [...products.keys()];
    /** @type {[string, Float32Array][]} */
    const rows = [[`query: ${query}`, q], [`key: ${key}`, k], ["query × key: their sum is the score before the scale", products]];
    const height = rows.length * (ROW_HEIGHT + ROW_GAP) + 22;
    const width = Math.min(MOST_WIDTH, Math.max(LEAST_WIDTH, this.bars.parentElement?.clientWidth ?? 0)); // so that text keeps its size
    const slot = (width - BARS_LEFT - BARS_RIGHT) / order.length;
    setAttribute(this.bars, "viewBox", `0 0 ${width} ${height}`);
    setAttribute(this.bars, "aria-label", `Bars of ${order.length} channels: ${query}, ${key}, and their products`);
    const every = Math.ceil(28 / slot);
    const numbers = order.map((channel, i) => (i % every ? "" : svg("text", { x: BARS_LEFT + (i + 0.5) * slot, y: height - 22, "text-anchor": "middle" }, String(channel + 1))));
    this.bars.replaceChildren(...rows.flatMap(([name, values], row) => barRow(name, values, order, slot, width, row * (ROW_HEIGHT + ROW_GAP) + 18)),
      ...numbers, svg("text", { x: (BARS_LEFT + width) / 2, y: height - 5, "text-anchor": "middle", class: "axis-name" }, "channel of the head"));
  }
}

/** @param {string} name @param {Float32Array} values @param {number[]} order @param {number} slot @param {number} width @param {number} top */
function barRow(name, values, order, slot, width, top) {
  const high = niceTicks(0, Math.max(...values.map(Math.abs)) || 1, 4).pop() ?? 1;
  const middle = top + ROW_HEIGHT / 2;
  const up = (/** @type {number} */ value) => middle - (value / high) * (ROW_HEIGHT / 2);
  const rule = (/** @type {number} */ value) => [svg("line", { class: value ? "rule" : "zero", x1: BARS_LEFT, x2: width - BARS_RIGHT, y1: up(value), y2: up(value) }), svg("text", { x: BARS_LEFT - 6, y: up(value) + 4, "text-anchor": "end" }, String(value).replace("-", "−"))];
  const bars = order.map((channel, i) => {
    const value = values[channel];
    const y = Math.min(up(value), middle);
    return svg("rect", { class: value < 0 ? "less" : "more", x: BARS_LEFT + (i + 0.1) * slot, width: Math.max(0.5, 0.8 * slot), y, height: Math.abs(up(value) - middle) || 0 }, svg("title", {}, `channel ${channel + 1}: ${value.toPrecision(3)}`));
  });
  return [svg("text", { x: BARS_LEFT, y: top - 6, class: "row-name" }, name), ...[high, 0, -high].flatMap(rule), ...bars];
}
