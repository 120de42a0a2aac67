// @ts-check
/** A view as the text of a link, and back. Numbers of layers, heads and images are from 1 in it. No DOM in here. */

import { DEFAULTS, isValid } from "./state.js";

/** @typedef {import("./state.js").State} State */

/** What is the reader's own and in no link. */
const PERSONAL = new Set(["theme", "opacity", "grid", "withSheet"]);
/** A link is longer only if it is not ours. */
const MOST_LETTERS = 8000;

/** @param {number} index */
const fromOne = (index) => String(index + 1);
/** @param {string} text */
const digits = (text) => (/^\d{1,15}$/.test(text) ? Number(text) : NaN);
/** @param {string} text */
const toIndex = (text) => digits(text) - 1;
/** @type {{write: (value: any) => string, read: (text: string) => any}} */
const FLAG = { write: (value) => (value ? "1" : "0"), read: (text) => ({ 1: true, 0: false })[text] };
const TOKEN = { write: String, read: (/** @type {string} */ text) => (/^\d/.test(text) ? digits(text) : text) };

/** @type {Record<string, {write: (value: any) => string, read: (text: string) => any}>} how a value is written, where it is not a text */
const CODES = {
  step: { write: String, read: digits },
  image: { write: fromOne, read: toIndex },
  layer: { write: fromOne, read: toIndex },
  head: { write: (value) => (typeof value === "number" ? fromOne(value) : value), read: (text) => (/^\d/.test(text) ? toIndex(text) : text) },
  query: TOKEN,
  key: TOKEN,
  colours: { write: (value) => value.map(fromOne).join(","), read: (text) => text.split(",").map(toIndex) },
  pin: { write: ({ run, step, image }) => `${step},${image + 1},${run}`, read: readPin },
};

/** @param {string} text @returns {import("./state.js").Place | undefined} */
function readPin(text) {
  const [, step, image, run] = /^(\d{1,15}),(\d{1,15}),(.*)$/s.exec(text) ?? [];
  return run === undefined ? undefined : { run, step: Number(step), image: toIndex(image) };
}

/** @param {string} name */
function codeOf(name) {
  const plain = { write: String, read: (/** @type {string} */ text) => text };
  return CODES[name] ?? (typeof (/** @type {any} */ (DEFAULTS)[name]) === "boolean" ? FLAG : plain);
}

/** A state as `name=value&…`, only what is not the default. @param {State} state @param {string} [before] what each name begins with */
export function encodeLink(state, before = "") {
  const parts = [];
  for (const [name, normal] of Object.entries(DEFAULTS)) {
    const value = /** @type {any} */ (state)[name];
    if (PERSONAL.has(name) || (value === normal && !["run", "step", "image"].includes(name)) || (name === "colours" && !value.length)) continue;
    if (value === "" || (name === "step" && value < 0)) continue;
    parts.push(`${before}${name}=${encodeURIComponent(codeOf(name).write(value))}`);
  }
  return parts.join("&");
}

/**
 * What a link says, and the parts of it that mean nothing.
 * @param {string} text what follows `#` or `?`
 * @param {string} [before] what each name begins with; others are not ours
 * @returns {{state: Partial<State>, bad: string[]}}
 */
export function decodeLink(text, before = "") {
  /** @type {Record<string, any>} */
  const state = {};
  const bad = [];
  for (const part of text.slice(0, MOST_LETTERS).split("&")) {
    const [encoded, ...rest] = part.split("=");
    if (!encoded.startsWith(before) || !rest.length) continue;
    const name = encoded.slice(before.length);
    const value = Object.hasOwn(DEFAULTS, name) && !PERSONAL.has(name) ? decodeValue(name, rest.join("=")) : undefined;
    if (value === undefined || !isValid(name, value)) bad.push(part.slice(0, 80));
    else state[name] = value;
  }
  if (text.length > MOST_LETTERS) bad.push("what follows its first 8,000 letters");
  return { state, bad };
}

/** @param {string} name @param {string} encoded */
function decodeValue(name, encoded) {
  try {
    return codeOf(name).read(decodeURIComponent(encoded));
  } catch {
    return undefined; // a percent sign that begins no letter
  }
}

/** The state of a reader who opens a link: what it does not say is the default, but for the reader's own. @param {State} own @param {Partial<State>} linked @returns {State} */
export function followLink(own, linked) {
  const personal = Object.fromEntries(Object.entries(own).filter(([name]) => PERSONAL.has(name)));
  return { ...DEFAULTS, ...personal, ...linked };
}

/** A link's hash with other view: what other plugins keep in it stays. @param {string} hash with or without # @param {State} state @param {string} before */
export function replaceLink(hash, state, before) {
  const others = hash.replace(/^#/, "").split("&").filter((part) => part && (before ? !part.startsWith(before) : false));
  return `#${[...others, encodeLink(state, before)].filter(Boolean).join("&")}`;
}

/** @param {number} number */
const stepPhrase = (number) => `step ${number.toLocaleString("en")}`;

/** What a log lacks of a link's run and step. @param {Partial<State>} wanted @param {import("./state.js").Place} place that is shown instead */
function missingOfRun(wanted, place) {
  if (wanted.run !== undefined && wanted.run !== place.run) return [`run ${wanted.run}, which is not in this log: ${place.run} is shown`];
  return wanted.step !== undefined && wanted.step !== place.step ? [`${stepPhrase(wanted.step)}, which was not logged: ${stepPhrase(place.step)} is shown`] : [];
}

/** What is not open of a link's network and cuts. @param {Partial<State>} wanted @param {import("./state.js").Place} place that is shown instead @param {boolean} asks whether networks are open, or in a file */
function missingOfNetwork(wanted, place, asks) {
  if (wanted.run !== undefined && wanted.run !== place.run) return [`the network ${wanted.run}, which is not ${asks ? "open" : "in this file"}: ${place.run} is shown`];
  return wanted.step && wanted.step !== place.step ? [`cuts that ${asks ? "this server does not have" : "are not in this file"}: the whole network is shown`] : [];
}

/**
 * What a link asks for and is not here, as sentences.
 * @param {Partial<State>} wanted
 * @param {import("../maps/view.js").Maps} here what is shown instead
 * @param {import("../maps/view.js").Maps | null} pinned
 */
export function missingOfLink(wanted, here, pinned) {
  const { place, index, about } = here;
  const problems = index.ofPictures ? missingOfNetwork(wanted, place, Boolean(index.asks)) : missingOfRun(wanted, place);
  if ((wanted.image ?? 0) >= index.images.length) problems.push(`image ${Number(wanted.image) + 1}, and there are ${index.images.length}: image ${place.image + 1} is shown`);
  if ((wanted.layer ?? 0) >= index.layers.length) problems.push(`layer ${Number(wanted.layer) + 1}, and there are ${index.layers.length}: the last is shown`);
  const heads = index.heads[here.layerOf(/** @type {State} */ ({ ...DEFAULTS, ...wanted }))];
  if (typeof wanted.head === "number" && wanted.head >= heads) problems.push(`head ${wanted.head + 1}, and there are ${heads}: their mean is shown`);
  if (wanted.target && index.classes && !index.classes.includes(wanted.target)) problems.push(`the class ${wanted.target}, which this network does not have: that of the predicted class is shown`);
  if (wanted.target && about.targets && !about.targets.includes(wanted.target)) problems.push(`the class ${wanted.target}, for which this image has no map: that of the predicted class is shown`);
  const { pin } = wanted;
  if (pin && pinned && (pin.run !== pinned.place.run || pin.step !== pinned.place.step)) problems.push(`a comparison with ${pin.run}${index.ofPictures ? "" : `, ${stepPhrase(pin.step)}`}, which is not here`);
  return problems.map((problem) => `The link asks for ${problem}.`);
}
