// @ts-check
/** "Try this map" and "Judge this map": whether what a map ranks first matters more than chance. */

import { h, setText, syncChildren } from "../drawing/dom.js";
import { helpButton } from "../words/help.js";
import { methodPhrase } from "../words/sentence.js";
import { signed } from "./cuts.js";
import { askedMethod, judgedLines, judgeProblem, judgingForwards, positions } from "./tries.js";

/** @typedef {import("../maps/view.js").Maps} Maps */
/** @typedef {import("./tries.js").Tried} Tried */

/** Patches that a try cuts. */
const COUNT = 3;

export class Trials {
  /** @param {import("../page.js").Page} page @param {import("../data/live_source.js").LiveSource} source @param {(patches: number[]) => void} cutPatches */
  constructor(page, source, cutPatches) {
    this.page = page;
    this.source = source;
    /** @type {Tried | null} */
    this.tried = null;
    this.triedKey = "";
    /** Judged maps of each picture and network. @type {Map<string, {judged: any, image: any}>} */
    this.judged = new Map();
    this.busy = "";
    this.problem = "";
    this.tryIt = h("button", { type: "button", onclick: () => this.ask("Trying", () => this.makeTry()) }, "Try this map");
    this.judge = h("button", { type: "button", onclick: () => this.ask(`Judging: ${judgingForwards(1)} forwards`, () => this.makeJudgement(false)) }, "Judge this map");
    this.judgeAll = h("button", { type: "button", title: "Relevance, rollout and the other methods that are drawn by default", onclick: () => this.ask("Judging all drawn methods: up to 184 forwards", () => this.makeJudgement(true)) }, "Judge all");
    this.status = h("p", { class: "hint", role: "status" });
    this.result = h("p", {});
    this.line = h("div", { class: "tried-line", "aria-hidden": "true" });
    this.note = h("p", { class: "hint" });
    this.cutThem = h("button", { type: "button", onclick: () => this.tried && cutPatches(this.tried.ranked.patches) }, `Cut these ${COUNT} patches`);
    this.triedPart = h("div", { class: "tried" }, this.result, this.line, this.note, this.cutThem);
    this.judgedPart = h("ul", { class: "judged", "aria-label": "Deletion and insertion of the judged maps of this picture" });
    this.element = h("section", { class: "trials", "aria-label": "Try and judge the map" },
      h("div", { class: "head" }, h("h2", {}, "Does the map show what matters?")),
      h("div", { class: "buttons" }, this.tryIt, helpButton("try"), this.judge, this.judgeAll, helpButton("faithfulness")), this.status, this.triedPart, this.judgedPart);
  }

  /** Do one thing at a time, and say what. @param {string} what @param {() => Promise<void>} task */
  async ask(what, task) {
    if (this.busy) return;
    this.busy = what;
    this.problem = "";
    this.draw();
    try {
      await task();
    } catch (error) {
      this.problem = error instanceof Error ? error.message : String(error);
    }
    this.busy = "";
    this.page.draw();
  }

  /** What a try belongs to: it is not shown of another map. @param {Maps} here */
  key(here) {
    const { method, query, target, layer, head, direction } = this.page.state;
    return JSON.stringify([here.place.run, here.place.image, method, query, target, layer, head, direction]);
  }

  /** @param {Maps} here */
  question(here) {
    return askedMethod(here, this.page.state);
  }

  async makeTry() {
    const { here, state } = this.page;
    const question = here && this.question(here);
    if (!here || !question || "problem" in question) return;
    const [key, { run, image }] = [this.key(here), here.place];
    const target = state.target ? (here.index.classes ?? []).indexOf(state.target) : "";
    const tried = await this.source.post("try", { run, image, method: question.method, query: state.query, target, count: COUNT });
    [this.tried, this.triedKey] = [tried, key];
  }

  /** @param {boolean} all drawn methods, else the one that is shown */
  async makeJudgement(all) {
    const { here } = this.page;
    const question = here && this.question(here);
    if (!here || (!all && (!question || "problem" in question))) return;
    const { run, image } = here.place;
    const methods = all || !question || "problem" in question ? [] : [question.method];
    const reply = await this.source.post("judge", { run, image, methods });
    const known = this.judged.get(`${run} ${image}`);
    this.judged.set(`${run} ${image}`, { judged: { ...reply.judged, methods: { ...known?.judged.methods, ...reply.judged.methods } }, image: { ...known?.image, ...reply.image } });
  }

  draw() {
    const { here, state } = this.page;
    if (!here) return;
    const question = this.question(here);
    const problem = "problem" in question ? question.problem : "";
    this.tryIt.disabled = this.judge.disabled = this.judgeAll.disabled = Boolean(this.busy);
    this.tryIt.disabled ||= Boolean(problem);
    this.judge.disabled ||= Boolean(problem || judgeProblem(state));
    const uncut = here.place.step ? "Try and judge ask the network as it is, without your cuts." : "";
    setText(this.status, this.busy ? `${this.busy} …` : this.problem || problem || uncut);
    this.status.classList.toggle("waiting", Boolean(this.busy));
    this.status.hidden = !this.status.textContent;
    const shown = this.triedKey === this.key(here) ? this.tried : null;
    this.triedPart.hidden = !shown;
    if (shown) this.drawTried(here, shown);
    this.drawJudged(here);
  }

  /** @param {Maps} here @param {Tried} tried */
  drawTried(here, tried) {
    const { ranked, mean, margin, verdict } = tried;
    const name = here.index.classes?.[tried.target] ?? `class ${tried.target}`;
    const conclusion = { better: "More than chance: this prediction depends on what the map ranks first.", worse: "Less than chance: this prediction depends on other patches more.", "no measurable difference": "No measurable difference: this try does not tell the map from chance." }[verdict];
    setText(this.result, `Logit of ${name}: ${signed(ranked.logit)} without the ${COUNT} patches that ${methodPhrase(here.index, this.page.state.method)} ranks first, ${signed(mean.logit)} ± ${margin.logit.toFixed(2)} without ${COUNT} random ones (mean of ${tried.random.length} orders, 95 %). ${conclusion}`);
    setText(this.note, tried.said[1] ?? "");
    const at = positions(tried);
    const marks = [{ kind: "range", left: at.from, width: at.to - at.from }, { kind: "zero", left: at.zero, width: 0 }, ...at.random.map((left) => ({ kind: "random", left, width: 0 })), { kind: "ranked", left: at.ranked, width: 0 }];
    syncChildren(this.line, marks, () => h("span"), (mark, { kind, left, width }) => {
      mark.className = kind;
      mark.style.left = `${left}%`;
      mark.style.width = width ? `${width}%` : "";
    });
  }

  /** The judged maps of this picture; the page's notes say the same of the map that is shown. @param {Maps} here */
  drawJudged(here) {
    const known = this.judged.get(`${here.place.run} ${here.place.image}`);
    this.judgedPart.hidden = !known;
    if (!known) return;
    if (!here.place.step) [here.index.judged, here.about.judged] = [known.judged, known.image];
    syncChildren(this.judgedPart, judgedLines(known.image), () => h("li", {}, h("b"), h("span")), (item, { label, deletion, insertion }) => {
      setText(item.children[0], label);
      setText(item.children[1], `: deletion ${deletion.value} (lower is better), ${deletion.words}; insertion ${insertion.value} (higher is better), ${insertion.words}.`);
    });
  }
}
