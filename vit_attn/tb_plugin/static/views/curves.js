// @ts-check
/** Measures of a head over training steps, beside those of the other heads of its layer. */

import { knownMean, linePath, niceTicks } from "../drawing/axes.js";
import { h, setAttribute, setText } from "../drawing/dom.js";
import { Picker } from "./picker.js";
import { svg } from "../drawing/svg.js";

/** @typedef {import("../data/source.js").RunMeasures} RunMeasures */
/** @typedef {{steps: number[], lines: {head: number, values: (number | null)[]}[], chosen: (number | null)[]}} Course */

/** @type {[string, string, string][]} measure, name, unit */
const CURVES = [
  ["entropy", "Entropy", "fraction of ln N"],
  ["distance", "Attention distance", "pixels"],
  ["sink", "Sink mass", "largest token's fraction"],
  ["prefix", "Attention to prefix tokens", "fraction of attention"],
];
const [CHART_WIDTH, CHART_HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [340, 190, 64, 16, 10, 40];

/** Courses of a measure in a layer: of each head, and of the chosen one or the mean of all. @param {RunMeasures} measures @param {string} name @param {number} layer @param {number | null} head */
export function courseOf({ steps, measures }, name, layer, head) {
  const rows = measures.map((each) => each?.[name]?.[layer] ?? []);
  const heads = Math.max(0, ...rows.map((row) => row.length));
  const lines = Array.from({ length: heads }, (_, i) => ({ head: i, values: rows.map((row) => row[i] ?? null) }));
  return { steps, lines, chosen: head === null ? rows.map(knownMean) : lines[head]?.values ?? [] };
}

export class Curves {
  /** @param {import("../page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.of = "";
    /** @type {RunMeasures | null} */
    this.measures = null;
    this.problem = "";
    this.picker = new Picker(page, true);
    this.mean = h("button", { type: "button", onclick: () => page.store.set({ head: "mean" }) }, "Mean of heads");
    this.text = h("p", { class: "says" });
    this.charts = CURVES.map(([name, title, unit]) => new Chart(page, name, title, unit));
    this.element = h("div", {}, this.text, h("div", { class: "picker" }, this.picker.element, this.mean), h("div", { class: "charts" }, ...this.charts.map(({ element }) => element)));
  }

  draw() {
    const { here, steps, state } = this.page;
    if (!here) return;
    this.picker.draw();
    const single = typeof state.head === "number";
    setAttribute(this.mean, "aria-pressed", !single);
    const of = `${here.place.run} ${steps.length} ${steps[steps.length - 1]}`;
    if (of !== this.of) this.load(of, here.place.run);
    const known = this.measures?.measures.some(Boolean);
    setText(this.text, this.problem || (!this.measures ? "Loading …" : known ? this.sentence() : "The measures of heads over steps were not logged in this run: an earlier version of vit_attn wrote it. Runs that begin now have them."));
    const layer = here.layerOf(state);
    for (const chart of this.charts) {
      chart.element.hidden = !known;
      if (known && this.measures) chart.draw(courseOf(this.measures, chart.name, layer, single ? this.picker.chosenHead : null), here.place.step);
    }
  }

  sentence() {
    const { here, state } = this.page;
    if (!here) return "";
    const what = typeof state.head === "number" ? `head ${this.picker.chosenHead + 1}` : "the mean of its heads";
    return `Layer ${here.layerOf(state) + 1}, ${what} (thick), and each head of the layer (thin), means over the probe images. Click a point, or use the arrow keys, to go to its step.`;
  }

  /** @param {string} of @param {string} run */
  async load(of, run) {
    this.of = of;
    if (this.measures && !of.startsWith(`${run} `)) this.measures = null;
    try {
      const measures = await this.page.source.measures(run);
      if (this.of !== of) return;
      [this.measures, this.problem] = [measures, ""];
    } catch (error) {
      if (this.of !== of) return;
      [this.measures, this.problem] = [null, `The measures cannot be read: ${error instanceof Error ? error.message : error}`];
    }
    this.page.drawView();
  }
}

/** One measure over steps. */
class Chart {
  /** @param {import("../page.js").Page} page @param {string} name @param {string} title @param {string} unit */
  constructor(page, name, title, unit) {
    this.page = page;
    this.name = name;
    this.title = title;
    this.unit = unit;
    /** @type {number[]} */
    this.steps = [];
    this.value = h("span", { class: "detail" });
    this.drawing = svg("svg", { viewBox: `0 0 ${CHART_WIDTH} ${CHART_HEIGHT}`, tabindex: 0, role: "slider", "aria-label": `${title} over training steps` });
    this.element = h("figure", { class: "chart" }, h("figcaption", {}, h("b", {}, title), " ", this.value));
    this.element.append(this.drawing);
    this.drawing.addEventListener("click", (event) => this.click(event));
    this.drawing.addEventListener("keydown", (event) => this.key(event));
  }

  /** @param {number} step */
  across(step) {
    const [first, last] = [this.steps[0], this.steps[this.steps.length - 1]];
    return last > first ? LEFT + ((step - first) / (last - first)) * (CHART_WIDTH - LEFT - RIGHT) : (LEFT + CHART_WIDTH - RIGHT) / 2;
  }

  /** @param {MouseEvent} event */
  click(event) {
    const place = this.drawing.getBoundingClientRect();
    const x = ((event.clientX - place.left) / place.width) * CHART_WIDTH;
    const nearest = this.steps.reduce((best, step) => (Math.abs(this.across(step) - x) < Math.abs(this.across(best) - x) ? step : best), this.steps[0]);
    this.page.store.set({ step: nearest, follow: false });
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!by) return;
    this.page.timeline?.go(this.page.timeline.position + by);
    event.preventDefault();
    event.stopPropagation();
  }

  /** @param {Course} course @param {number} now */
  draw({ steps, lines, chosen }, now) {
    this.steps = steps;
    const known = lines.flatMap(({ values }) => values.filter((value) => value !== null));
    const ticks = niceTicks(0, Math.max(0, ...known.map(Number)) || 1, 4);
    const high = ticks[ticks.length - 1];
    const up = (/** @type {number} */ value) => CHART_HEIGHT - BOTTOM - (value / high) * (CHART_HEIGHT - TOP - BOTTOM);
    const points = (/** @type {(number | null)[]} */ values) => steps.map((step, i) => /** @type {[number, number | null]} */ ([this.across(step), values[i] === null || values[i] === undefined ? null : up(Number(values[i]))]));
    const at = steps.indexOf(now);
    const value = chosen[at];
    const words = value === null || value === undefined ? "not a number" : value.toPrecision(3);
    setText(this.value, `${words} at step ${now.toLocaleString("en")}`);
    setAttribute(this.drawing, "aria-valuemin", 0);
    setAttribute(this.drawing, "aria-valuemax", steps.length - 1);
    setAttribute(this.drawing, "aria-valuenow", at);
    setAttribute(this.drawing, "aria-valuetext", `step ${now}: ${words}, ${this.unit}`);
    const dots = points(chosen).flatMap(([x, y], i) => (y === null ? [] : [svg("circle", { cx: x, cy: y, r: i === at ? 5 : 3, class: i === at ? "now" : "dot" }, svg("title", {}, `step ${steps[i]}: ${Number(chosen[i]).toPrecision(3)}`))]));
    this.drawing.replaceChildren(...this.axes(ticks, up), svg("line", { class: "here", x1: this.across(now), x2: this.across(now), y1: TOP, y2: CHART_HEIGHT - BOTTOM }),
      ...lines.map(({ values }) => svg("path", { class: "thin", d: linePath(points(values)) })), svg("path", { class: "thick", d: linePath(points(chosen)) }), ...dots);
  }

  /** @param {number[]} ticks @param {(value: number) => number} up */
  axes(ticks, up) {
    const [first, last] = [this.steps[0], this.steps[this.steps.length - 1]];
    const stepTicks = niceTicks(first, last, 4).filter((step) => step >= first && step <= last);
    const bottom = CHART_HEIGHT - BOTTOM;
    return [
      ...ticks.flatMap((tick) => [svg("line", { class: "rule", x1: LEFT, x2: CHART_WIDTH - RIGHT, y1: up(tick), y2: up(tick) }), svg("text", { x: LEFT - 6, y: up(tick) + 4, "text-anchor": "end" }, String(tick))]),
      ...stepTicks.map((step) => svg("text", { x: this.across(step), y: bottom + 15, "text-anchor": "middle" }, step.toLocaleString("en"))),
      svg("text", { x: (LEFT + CHART_WIDTH - RIGHT) / 2, y: CHART_HEIGHT - 6, "text-anchor": "middle", class: "axis-name" }, "training step"),
      svg("text", { x: 11, y: (TOP + bottom) / 2, transform: `rotate(-90 11 ${(TOP + bottom) / 2})`, "text-anchor": "middle", class: "axis-name" }, this.unit),
    ];
  }
}
