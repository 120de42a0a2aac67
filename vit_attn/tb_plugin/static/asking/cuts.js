// @ts-check
/** What is cut in the running network, its history, and what each list of cuts did. No DOM in here. */

import { tokenName } from "../maps/view.js";

/** @typedef {{kind: "patch", token: number}} PatchCut no other token attends to it */
/** @typedef {{kind: "edge", query: number | "pool", key: number, layer: number | null, head: number | null}} EdgeCut null: in all layers or heads */
/** @typedef {{kind: "head", layer: number, head: number}} HeadCut */
/** @typedef {PatchCut | EdgeCut | HeadCut} Cut numbers from 0 */
/** @typedef {{logits: number[], probabilities: number[]}} Outcome of all classes */
/** @typedef {{step: number, before: Outcome, after: Outcome, said: string[], code: string}} Reply of the server to a list of cuts */
/** @typedef {{cuts: Cut[], reply: Reply | null, problem: string}} Entry */
/** @typedef {import("../maps/view.js").Index} Index */

/** Whether two cuts are the same. @param {Cut} a @param {Cut} b */
export function isSameCut(a, b) {
  return cutKey(a) === cutKey(b);
}

/** @param {Cut} cut */
function cutKey(cut) {
  if (cut.kind === "patch") return `patch ${cut.token}`;
  if (cut.kind === "head") return `head ${cut.layer} ${cut.head}`;
  return `edge ${cut.query} ${cut.key} ${cut.layer} ${cut.head}`;
}

/** The list with a cut, or without it where it has it. @param {Cut[]} cuts @param {Cut} cut @returns {Cut[]} */
export function toggleCut(cuts, cut) {
  const left = cuts.filter((each) => !isSameCut(each, cut));
  return left.length < cuts.length ? left : [...cuts, cut];
}

/** The list with further cuts. @param {Cut[]} cuts @param {Cut[]} more @returns {Cut[]} */
export function addCuts(cuts, more) {
  return [...cuts, ...more.filter((cut) => !cuts.some((each) => isSameCut(each, cut)))];
}

/** Lists of cuts in the order in which they were made: undo goes back, a new list drops those that were undone. */
export class CutHistory {
  /** @param {string} run @param {number} image that are cut */
  constructor(run = "", image = 0) {
    this.run = run;
    this.image = image;
    /** @type {Entry[]} */
    this.entries = [{ cuts: [], reply: null, problem: "" }];
    this.at = 0;
  }

  /** Whether the lists are of a place's network and picture. @param {{run: string, image: number}} place */
  isOf({ run, image }) {
    return run === this.run && image === this.image;
  }

  get entry() {
    return this.entries[this.at];
  }

  get cuts() {
    return this.entry.cuts;
  }

  get canUndo() {
    return this.at > 0;
  }

  get canRedo() {
    return this.at < this.entries.length - 1;
  }

  /** Go on with another list; nothing changes where it is the same. @param {Cut[]} cuts */
  push(cuts) {
    if (cuts.length === this.cuts.length && cuts.every((cut, i) => isSameCut(cut, this.cuts[i]))) return;
    this.entries = [...this.entries.slice(0, this.at + 1), { cuts, reply: null, problem: "" }];
    this.at += 1;
  }

  /** @param {number} at position in the history */
  go(at) {
    this.at = Math.min(this.entries.length - 1, Math.max(0, at));
  }

  /** The step of the network under the list that stands now: 0 for none; null where the server has not answered. */
  get step() {
    return this.cuts.length ? (this.entry.reply?.step ?? null) : 0;
  }

  /** The position of the list that has a step; -1 if none has it. @param {number} step */
  find(step) {
    const own = this.step === step ? this.at : -1;
    return own >= 0 ? own : this.entries.findIndex(({ cuts, reply }) => (cuts.length ? reply?.step : 0) === step);
  }

  /** What is to be asked next: the list that stands now, then those that were overtaken; nothing where all are answered. @returns {Entry | undefined} */
  get open() {
    const isOpen = (/** @type {Entry} */ { cuts, reply, problem }) => cuts.length > 0 && !reply && !problem;
    return isOpen(this.entry) ? this.entry : this.entries.find(isOpen);
  }
}

/** Histories, one for each network and picture. */
export class CutHistories {
  constructor() {
    /** @type {Map<string, CutHistory>} */
    this.known = new Map();
  }

  /** The history of a place; a new one if nothing was cut there. @param {{run: string, image: number}} place */
  of({ run, image }) {
    const key = JSON.stringify([run, image]);
    const history = this.known.get(key) ?? new CutHistory(run, image);
    this.known.set(key, history);
    return history;
  }
}

/** The class that is watched: the chosen one, else the one that the whole network predicts. @param {Outcome} before @param {string[]} classes @param {string} chosen */
export function watchedClass(before, classes, chosen) {
  const index = classes.indexOf(chosen);
  return index >= 0 ? index : before.logits.indexOf(Math.max(...before.logits));
}

/** What cuts did to a class. @param {Reply} reply @param {number} target */
export function changeOf({ before, after }, target) {
  const pair = (/** @type {"logits" | "probabilities"} */ name) => ({ before: before[name][target], after: after[name][target], change: after[name][target] - before[name][target] });
  return { logit: pair("logits"), probability: pair("probabilities") };
}

/** Classes for the bars: the watched one, and the most probable before and after. @param {Reply} reply @param {number} target @param {number} [most] @returns {number[]} */
export function barClasses({ before, after }, target, most = 6) {
  const best = (/** @type {Outcome} */ { probabilities }) => [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const [old, now] = [best(before), best(after)];
  const chosen = new Set([target]);
  for (let i = 0; chosen.size < Math.min(most, old.length); i++) for (const each of [old[i], now[i]]) if (chosen.size < most) chosen.add(each);
  return [...chosen].sort((a, b) => before.probabilities[b] - before.probabilities[a]);
}

/** A change with its sign. @param {number} value @param {number} [digits] */
export function signed(value, digits = 2) {
  if (!Number.isFinite(value)) return "not a number";
  const text = Math.abs(value).toFixed(digits);
  return `${Number(text) === 0 ? "±" : value > 0 ? "+" : "−"}${text}`;
}

/** A logit, with a minus sign that is as wide as a plus. @param {number} value */
export function logitText(value) {
  return Number.isFinite(value) ? value.toFixed(2).replace("-", "−") : "not a number";
}

/** A cut in a few words. @param {Cut} cut @param {Index} index */
export function cutName(cut, index) {
  if (cut.kind === "patch") return cut.token < index.prefix.length ? `${index.prefix[cut.token]} as a key` : `patch ${tokenName(index, cut.token)}`;
  if (cut.kind === "head") return `layer ${cut.layer + 1}, head ${cut.head + 1}`;
  const where = [cut.layer === null ? "" : `layer ${cut.layer + 1}`, cut.head === null ? "" : `head ${cut.head + 1}`].filter(Boolean).join(", ");
  return `${tokenName(index, cut.query)} → ${tokenName(index, cut.key)}${where ? ` (${where})` : ""}`;
}

/** What changed from one list of the history to the next, in a few words. @param {Cut[]} cuts @param {Cut[]} before @param {Index} index */
export function stepName(cuts, before, index) {
  if (!cuts.length) return before.length ? "cleared" : "nothing cut";
  const added = cuts.filter((cut) => !before.some((each) => isSameCut(each, cut)));
  const removed = before.filter((cut) => !cuts.some((each) => isSameCut(each, cut)));
  const names = (/** @type {Cut[]} */ list) => (list.length > 1 ? `${list.length} cuts` : cutName(list[0], index));
  return [added.length ? `+ ${names(added)}` : "", removed.length ? `− ${names(removed)}` : ""].filter(Boolean).join(", ");
}
