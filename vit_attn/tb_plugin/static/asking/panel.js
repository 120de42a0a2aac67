// @ts-check
/** Asking by cutting: what a click cuts in the running network, what that did to the prediction, and the way back. */

import { h, segmented, setAttribute, setText, syncChildren } from "../drawing/dom.js";
import { helpButton } from "../words/help.js";
import { addCuts, changeOf, CutHistories, cutName, signed, stepName, toggleCut, watchedClass } from "./cuts.js";
import { drawCuts } from "./hatch.js";
import { CutModes } from "./modes.js";
import { CutOutcome } from "./outcome.js";
import { Trials } from "./trials.js";

/** @typedef {import("../maps/view.js").Maps} Maps */
/** @typedef {import("./cuts.js").Cut} Cut */
/** @typedef {import("./cuts.js").CutHistory} CutHistory */
/** @typedef {import("./cuts.js").Entry} Entry */
/** @typedef {"before" | "after" | "both"} Seen */

const SAID_MS = 2500;

export class Asking {
  /** @param {import("../page.js").Page} page @param {import("../data/live_source.js").LiveSource} source */
  constructor(page, source) {
    this.page = page;
    this.source = source;
    this.histories = new CutHistories();
    /** That was drawn last. @type {CutHistory | null} */
    this.drawn = null;
    this.asking = false;
    /** Whose cuts are fetched. @type {CutHistory | null} */
    this.recalling = null;
    this.sentence = "";
    /** @type {import("./cuts.js").Reply | null} shown until the next one comes */
    this.lastReply = null;
    /** Which attention is shown while something is cut. @type {Seen} */
    this.seen = "before";
    this.pinned = false; // whether this panel put the uncut network beside the cut one
    this.modes = new CutModes(page, (cut) => this.change(toggleCut(this.history.cuts, cut)));
    this.outcome = new CutOutcome();
    this.trials = new Trials(page, source, (patches) => this.cutPatches(patches));
    this.build();
    page.store.listeners.push((changed) => (changed.has("run") || changed.has("image")) && this.chooseStep(changed));
    document.addEventListener("keydown", (event) => this.onKey(event));
  }

  /** Cuts of the network and picture that are shown, while others may be loading. */
  get history() {
    return this.histories.of(this.page.here?.place ?? { run: "", image: 0 });
  }

  build() {
    const button = (/** @type {string} */ text, /** @type {string} */ title, /** @type {() => void} */ act) => h("button", { type: "button", title, onclick: act }, text);
    this.undo = button("Undo", "Undo (Ctrl or ⌘ + Z)", () => this.goTo(this.history.at - 1));
    this.redo = button("Redo", "Redo (Ctrl or ⌘ + Shift + Z)", () => this.goTo(this.history.at + 1));
    this.clear = button("Clear", "Put everything back", () => this.change([]));
    this.switch = segmented("Attention that the maps show", [["before", "as it was"], ["after", "after the cuts"], ["both", "both"]], (seen) => this.see(/** @type {Seen} */ (seen)));
    this.said = h("p", { class: "unseen", role: "status", "aria-live": "polite" });
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.list = h("ul", { class: "cuts", "aria-label": "What is cut" });
    this.steps = h("ol", { class: "history" });
    this.past = h("details", {}, h("summary", {}, "History"), this.steps);
    this.code = h("pre", { tabindex: 0, "aria-label": "Python lines that repeat the cuts" });
    this.copy = button("Copy the Python lines", "Lines that open the same network and picture and make the same cuts", () => this.copyCode());
    this.python = h("details", {}, h("summary", {}, "Python"), this.code);
    this.answered = h("div", { class: "answered" }, this.list, this.outcome.element, h("div", { class: "field" }, h("div", { class: "label" }, "Maps show the attention"), this.switch.element), h("div", { class: "buttons" }, this.copy), this.python, this.past);
    this.element = h("section", { class: "asking", "aria-label": "Ask by cutting" },
      h("div", { class: "head" }, h("h2", {}, "Ask by cutting"), helpButton("cut")), this.modes.element,
      h("div", { class: "buttons" }, this.undo, this.redo, this.clear), this.problem, this.said, this.answered);
  }

  /** Cut patches that a map ranks, from 0. @param {number[]} patches */
  cutPatches(patches) {
    const prefix = this.page.here?.grid.prefix ?? 0;
    this.change(addCuts(this.history.cuts, patches.map((patch) => ({ kind: "patch", token: prefix + patch }))));
  }

  /** @param {Cut[]} cuts */
  change(cuts) {
    if (!this.history.isOf(this.page.store.state)) return; // another picture is loading: what was clicked is on its way out
    this.history.push(cuts);
    this.goTo(this.history.at);
  }

  /** @param {number} at position in the history */
  goTo(at) {
    const { history } = this;
    if (!history.isOf(this.page.store.state)) return;
    history.go(at);
    if (history.entry.problem) history.entry.problem = ""; // it is asked again
    this.follow();
    this.page.draw();
    this.ask();
  }

  /** Ask for the list that stands now; lists that were overtaken meanwhile are asked when there is time. */
  async ask() {
    if (this.asking || !this.page.here) return;
    this.asking = true;
    for (let { history } = this, open = history.open; open && history === this.history; open = history.open) await this.askFor(open, history);
    this.asking = false;
    if (this.history.open) this.ask(); // of another picture
  }

  /** @param {Entry} entry @param {CutHistory} history that it is of */
  async askFor(entry, { run, image }) {
    try {
      entry.reply = await this.source.post("cut", { run, image, cuts: entry.cuts });
    } catch (error) {
      entry.problem = error instanceof Error ? error.message : String(error);
    }
    if (entry === this.history.entry) this.follow();
    this.page.draw();
    const { top, bottom } = this.outcome.element.getBoundingClientRect();
    if (entry === this.history.entry && (bottom < 0 || top > window.innerHeight)) this.page.say(entry.problem || this.sentence);
  }

  /** Choose which attention is shown. @param {Seen} seen */
  see(seen) {
    this.seen = seen;
    this.follow();
    this.drawSwitch();
  }

  /** Have the page show the attention that was chosen, of the cuts that stand now; not while another picture is loading. @param {CutHistory} [history] */
  follow(history = this.history) {
    const { store } = this.page;
    const { step } = history;
    if (step === null || !history.isOf(store.state)) return;
    const { run, image, pin } = store.state;
    const own = pin?.run === run && pin.image === image && pin.step === 0;
    if (this.seen === "both" && step) {
      this.pinned ||= !own;
      return store.set({ step, pin: own ? pin : { run, step: 0, image } });
    }
    const ends = own && this.pinned; // a comparison that the user made stays, as with a network that is chosen while it is A
    this.pinned = false;
    store.set({ step: this.seen === "before" ? 0 : step, pin: ends ? null : pin });
  }

  /** Choose the cuts under which another network or picture is loaded: its own. @param {Set<string>} changed */
  chooseStep(changed) {
    const { store } = this.page;
    const history = this.histories.of(store.state);
    const { step } = store.state;
    if (step && (changed.has("step") || history.find(step) >= 0)) return; // it is adopted when it is shown
    if (history.step === null) store.set({ step: 0 }); // until the server has answered
    this.follow(history);
  }

  /** Go on with the cuts of a network and picture that have come. @param {CutHistory} history */
  enter(history) {
    if (this.drawn === history) return;
    [this.drawn, this.lastReply] = [history, null];
    if (!this.page.store.state.step) this.follow();
    if (history.open) this.ask();
  }

  /** Take over a step that was chosen elsewhere, as the other side of a comparison or by a link. */
  adopt() {
    const { state } = this.page.store;
    const { history } = this;
    if (history.step === null || !history.isOf(state)) return; // the server has not answered yet
    const at = history.find(state.step);
    if (at < 0) return void this.recall(history, state.step);
    if (state.step) history.go(at);
    if (state.step && this.seen === "before") this.seen = "after";
    if (!state.step && history.step && this.seen !== "before") this.seen = "before";
  }

  /** Take over the cuts of a step that this page has not made, which the server keeps. @param {CutHistory} history @param {number} step */
  async recall(history, step) {
    if (this.recalling === history) return;
    this.recalling = history;
    const { entry } = history;
    try {
      const cuts = await this.source.cuts(history.run, step);
      if (entry !== history.entry) return; // something was cut meanwhile
      const { pin } = this.page.store.state;
      if (this.seen === "before") this.seen = pin && pin.step === 0 && history.isOf(pin) ? "both" : "after";
      history.push(cuts);
    } catch (error) {
      this.page.address?.say(error instanceof Error ? error.message : String(error));
      this.follow(history);
    } finally {
      this.recalling = null;
    }
    this.page.draw();
    this.ask();
  }

  /** @param {number} token @param {Event} _event @param {Maps} maps */
  takePatch(token, _event, maps) {
    return this.isOf(maps) && this.modes.takeToken(token);
  }

  /** @param {number} layer @param {number} head */
  takeHead(layer, head) {
    return this.modes.takeHead(layer, head);
  }

  /** A cell of the matrix is an edge. @param {number} query @param {number} key */
  takeCell(query, key) {
    if (this.modes.mode === "patch") return this.modes.takeToken(key);
    if (this.modes.mode !== "edge" || this.modes.picking) return false;
    this.change(toggleCut(this.history.cuts, this.modes.edgeTo(key, query)));
    return true;
  }

  /** Whether maps are of the network and picture that are cut. @param {Maps} maps */
  isOf({ place }) {
    const { here } = this.page;
    return place.run === here?.place.run && place.image === here.place.image;
  }

  /** @param {HTMLCanvasElement} marks @param {Maps} maps */
  drawOver(marks, maps) {
    if (this.isOf(maps)) drawCuts(marks, maps.grid, this.history.cuts);
  }

  /** Strike a head of the sheet that is cut. @param {HTMLElement} button @param {number} layer @param {number} head */
  drawHead(button, layer, head) {
    const cut = this.history.cuts.some((each) => each.kind === "head" && each.layer === layer && each.head === head);
    button.classList.toggle("is-cut", cut);
    if (cut) setAttribute(button, "aria-label", `cut: ${button.getAttribute("aria-label")}`);
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    if (!(event.ctrlKey || event.metaKey) || event.altKey || event.key.toLowerCase() !== "z" || target.closest("dialog, input:not([type=range], [type=checkbox])")) return;
    const by = event.shiftKey ? 1 : -1;
    if (by < 0 ? !this.history.canUndo : !this.history.canRedo) return;
    event.preventDefault();
    this.goTo(this.history.at + by);
  }

  async copyCode() {
    const code = this.history.entry.reply?.code ?? "";
    const done = await navigator.clipboard?.writeText(code).then(() => true, () => false);
    if (!done) this.python.open = true; // to be copied by hand
    setText(this.copy, done ? "Copied" : "Select and copy them below");
    setTimeout(() => setText(this.copy, "Copy the Python lines"), SAID_MS);
  }

  draw() {
    const { here } = this.page;
    if (!here) return;
    const { history } = this;
    this.enter(history);
    this.adopt();
    const { cuts, reply, problem } = history.entry;
    this.modes.draw(cuts);
    this.undo.disabled = !history.canUndo;
    this.redo.disabled = !history.canRedo;
    this.clear.disabled = !cuts.length;
    this.problem.hidden = !problem;
    setText(this.problem, problem);
    this.answered.hidden = history.entries.length === 1;
    setAttribute(this.answered, "aria-busy", Boolean(cuts.length && !reply && !problem));
    this.drawList(here, cuts);
    this.sentence = this.outcome.draw(cuts.length ? (reply ?? this.lastReply) : null, here.index.classes ?? [], this.page.store.state.target);
    if (reply || !cuts.length) this.lastReply = cuts.length ? reply : null;
    if (reply || !cuts.length) setText(this.said, cuts.length ? `${cuts.length} cut${cuts.length > 1 ? "s" : ""}. ${this.sentence}` : history.canRedo || history.canUndo ? "Nothing is cut." : "");
    setText(this.code, reply?.code ?? "");
    this.copy.disabled = !reply;
    this.python.hidden = !reply;
    this.drawSwitch();
    this.drawHistory(here);
  }

  drawSwitch() {
    this.switch.update(this.seen, () => this.history.cuts.length > 0);
  }

  /** @param {Maps} here @param {Cut[]} cuts */
  drawList({ index }, cuts) {
    this.list.hidden = !cuts.length;
    const said = this.history.entry.reply?.said ?? [];
    syncChildren(this.list, cuts, () => h("li", {}, h("span"), h("button", { type: "button" }, "×")), (item, cut, i) => {
      const name = cutName(cut, index);
      setText(item.children[0], name);
      setAttribute(item, "title", said[i] ?? name);
      const remove = /** @type {HTMLButtonElement} */ (item.children[1]);
      setAttribute(remove, "aria-label", `Put back ${name}`);
      remove.onclick = () => {
        this.change(toggleCut(this.history.cuts, cut));
        const next = this.list.children[Math.min(i, this.list.children.length - 1)]?.children[1] ?? this.undo;
        /** @type {HTMLElement} */ (next).focus();
      };
    });
  }

  /** @param {Maps} here */
  drawHistory({ index }) {
    const { entries, at } = this.history;
    const { target } = this.page.store.state;
    syncChildren(this.steps, entries, () => h("li", {}, h("button", { type: "button" }, h("span"), h("span", { class: "chance" }))), (item, { cuts, reply, problem }, i) => {
      const button = /** @type {HTMLButtonElement} */ (item.children[0]);
      setText(button.children[0], stepName(cuts, entries[i - 1]?.cuts ?? [], index));
      const change = reply && changeOf(reply, watchedClass(reply.before, index.classes ?? [], target)).logit.change;
      setText(button.children[1], !cuts.length ? "logit ±0.00" : problem ? "failed" : change === null ? "…" : `logit ${signed(change)}`);
      setAttribute(button, "aria-current", i === at ? "step" : null);
      button.onclick = () => this.goTo(i);
    });
  }
}
