// @ts-check
/** What a saved file says of the view, and its numbers. No DOM in here. */

import { isByLayer, isClassSpecific, methodLabel } from "../maps/methods.js";
import { imageNumber, placeName, tokenName } from "../maps/view.js";

/** @typedef {import("../maps/view.js").Maps} Maps */
/** @typedef {import("../maps/view.js").Shown} Shown */
/** @typedef {import("../data/state.js").State} State */

/** Names and values that tell where numbers are from. @param {Maps} maps @param {State} state as it is shown @param {Maps | null} [pinned] @returns {[string, string][]} */
export function aboutView(maps, state, pinned = null) {
  const { place, index, about } = maps;
  const { method } = state;
  const head = maps.headOf(state);
  const column = state.direction === "to" && state.query !== "pool";
  const [best, chance] = about.top[0] ?? ["", null];
  const layer = maps.layerOf(state) + 1;
  /** @type {[string, string][]} */
  const lines = index.ofPictures ? [["network", place.run], ...(index.asks ? [/** @type {[string, string]} */ (["cuts", String(index.cuts ?? 0)])] : [])] : [["run", place.run], ["step", String(place.step)]];
  lines.push(["image", String(imageNumber(index, place.image))]);
  if (about.name) lines.push(["file", about.name]);
  if (about.label !== null) lines.push(["label", about.label]);
  if (best) lines.push(["predicted", `${best} ${chance ?? "nan"}`]);
  lines.push(["method", methodLabel(index, method)]);
  if (isClassSpecific(index, method)) lines.push(["class", state.target || best]);
  if (isByLayer(method)) lines.push([method === "rollout" ? "layers" : "layer", method === "rollout" ? `1-${layer}` : String(layer)], ["head", typeof head === "number" ? String(head + 1) : `${head} of ${index.heads[layer - 1]}`]);
  lines.push(["query", tokenName(index, state.query)], ["direction", column ? "attended by" : "attends to"]);
  if (pinned) lines.push(["A", pinned.index.ofPictures ? placeName(pinned) : `${pinned.place.run}, step ${pinned.place.step}, image ${imageNumber(pinned.index, pinned.place.image)}`]);
  lines.push(["unit", isClassSpecific(index, method) ? "none" : "fraction of attention"]);
  return lines;
}

/** One row a token: its name and place, the value, and whether it is left out. @param {Maps} maps @param {Shown} shown @param {Shown | null} [a] @param {Shown | null} [change] @returns {import("./numbers.js").Column[]} */
export function columnsOfView(maps, shown, a = null, change = null) {
  const { prefix, cols } = maps.grid;
  const tokens = [...shown.values.keys()];
  const place = (/** @type {number} */ token, /** @type {(patch: number) => number} */ of) => (token < prefix ? null : of(token - prefix) + 1);
  const columns = [
    { name: "token", values: tokens },
    { name: "name", values: tokens.map((token) => (token < prefix ? tokenName(maps.index, token) : "patch")) },
    { name: "row", values: tokens.map((token) => place(token, (patch) => Math.floor(patch / cols))) },
    { name: "column", values: tokens.map((token) => place(token, (patch) => patch % cols)) },
    { name: "value", values: shown.values },
    { name: "left_out", values: tokens.map((token) => Number(shown.hidden.has(token))) },
  ];
  const same = a && a.values.length === shown.values.length;
  if (same) columns.push({ name: "value_of_A", values: a.values });
  if (change) columns.push({ name: "B_minus_A", values: change.values });
  return columns;
}

/** A file's name without its ending. @param {Maps} maps */
export function fileName({ place, index, about }) {
  if (index.ofPictures) return ["attention", place.run, index.cuts ? `${index.cuts}cuts` : "", about.name?.replace(/\.\w+$/, "") ?? `picture${place.image + 1}`].filter(Boolean).map((part) => part.replace(/[^\p{L}\p{N}.-]+/gu, "_")).join("_");
  return `attention_${place.run.replace(/[^\w.-]+/g, "_")}_step${place.step}_image${imageNumber(index, place.image)}`;
}
