// @ts-check
/** The page: it loads what a change of the state needs, and has its parts drawn. */

import { Address } from "./data/address.js";
import { Alert, Toast } from "./parts/alert.js";
import { Controls } from "./parts/controls.js";
import { h, setText } from "./drawing/dom.js";
import { onKey } from "./parts/keys.js";
import { followWidth, takeFocus } from "./parts/layout.js";
import { Lead } from "./parts/lead.js";
import { askNetwork, failureOf, loadImage, loadMaps, nearestStep } from "./data/loading.js";
import { Notes } from "./parts/notes.js";
import { keepPolling } from "./data/polling.js";
import { Sheet } from "./parts/sheet.js";
import { Stage } from "./parts/stage.js";
import { Strip } from "./parts/strip.js";
import { followTheme } from "./parts/theme.js";
import { Timeline } from "./parts/timeline.js";
import { Views } from "./views/views.js";

/** @typedef {import("./data/state.js").Place} Place */
/** @typedef {import("./maps/view.js").Maps} Maps */
/** @typedef {{token: number} | {query: number, key: number} | null} Hover a token beside the query, or a cell of the matrix */

/** @typedef {{element: HTMLElement, draw: () => void}} Part */
/** @typedef {Part & {takePatch?: (token: number, event: Event, maps: Maps) => boolean, takeHead?: (layer: number, head: number, event: Event) => boolean, takeCell?: (query: number, key: number, event: Event) => boolean, drawOver?: (marks: HTMLCanvasElement, maps: Maps) => void, drawHead?: (button: HTMLElement, layer: number, head: number) => void}} AskingPart it may take a click on a patch, a head or a cell of the matrix, and draw over the marks of a picture and over a head of the sheet */
/** @typedef {{welcome?: Part, above?: Part[], below?: AskingPart[], target?: Part & {next: () => void}, compare?: Part, settle?: () => Promise<boolean>, recover?: () => Promise<boolean>}} Extras what a page that asks networks has besides: welcome, where there is nothing to show; parts above and below the maps; target and compare, in place of those of the controls; settle tells whether there is anything to show, recover whether something else can be shown after an error */

const FOR_DATA = new Set(["run", "step", "image", "pin"]);

export class Page {
  /** @param {HTMLElement} root @param {import("./data/loading.js").Source} source @param {import("./data/state.js").Store} store @param {(page: Page) => Extras} [extras] */
  constructor(root, source, store, extras = () => ({})) {
    this.source = source;
    this.store = store;
    /** @type {{name: string, problem: string}[]} */
    this.runs = [];
    /** @type {number[]} */
    this.steps = [];
    this.stepsOf = "";
    /** @type {Maps | null} */
    this.here = null;
    /** @type {Maps | null} */
    this.pinned = null;
    /** @type {Map<Maps, HTMLImageElement>} */
    this.pictures = new Map();
    /** @type {Hover} */
    this.hover = null;
    this.generation = 0;
    this.unreachable = false;
    this.everything = false; // whether all layers are loaded, however many bytes they are
    this.extras = extras(this);
    this.build(root);
    store.listeners.push((changed) => this.changed(changed));
  }

  /** What the user chose, as it can be shown of what is loaded. */
  get state() {
    return this.here?.possible(this.store.state) ?? this.store.state;
  }

  /** @param {HTMLElement} root */
  build(root) {
    this.root = root;
    this.address = new Address(this);
    this.controls = new Controls(this);
    this.lead = new Lead(this);
    this.strip = new Strip(this);
    this.timeline = new Timeline(this);
    this.stage = new Stage(this);
    this.sheet = new Sheet(this);
    this.research = new Views(this);
    this.notes = new Notes(this);
    /** What is drawn of the maps, from top to bottom. @type {{element: HTMLElement, draw: () => void}[]} */
    this.views = [this.strip, this.timeline, ...(this.extras.above ?? []), this.stage, ...(this.extras.below ?? []), this.research, this.sheet, this.notes];
    this.alert = new Alert(() => this.retry());
    this.empty = this.extras.welcome?.element ?? h("p", { class: "empty", hidden: true });
    this.parts = h("div", { class: "parts", hidden: true }, ...this.views.map(({ element }) => element));
    this.toast = new Toast();
    const main = h("main", { tabindex: -1 }, this.alert.element, this.address.notice, this.lead.element, this.empty, this.parts, this.toast.element);
    root.replaceChildren(h("div", { class: "app" }, this.controls.element, main));
    root.addEventListener("keydown", (event) => onKey(this, event));
    new ResizeObserver(() => requestAnimationFrame(() => this.resized())).observe(main);
    followWidth(this);
    followTheme(this);
    takeFocus(root, main);
  }

  /** Load the view, and ask for new runs and steps from then on. */
  async start() {
    await this.sync();
    if (this.source.live) keepPolling(this);
  }

  /** @param {Set<string>} changed */
  changed(changed) {
    const missing = [this.here, this.pinned].some((maps) => maps && !maps.has(this.store.state));
    if (!missing && ![...changed].some((name) => FOR_DATA.has(name))) return this.draw();
    this.sync();
    if (!this.source.asks) return;
    this.controls?.draw(); // what was chosen is seen at once, and its map when the network has answered
    this.stage?.drawMarks();
  }

  async retry() {
    this.runs = [];
    this.stepsOf = "";
    for (const maps of [this.here, this.pinned]) maps?.replies.forgetFailures();
    await this.sync();
  }

  /** Load what the state names; a reply that comes after a newer request is dropped. */
  async sync() {
    const generation = ++this.generation;
    this.root?.setAttribute("aria-busy", "true");
    try {
      await this.settle();
      if (generation !== this.generation || !this.stepsOf) return;
      const here = await this.load(this.state, this.here, this.pinned);
      const { pin } = this.state;
      const pinned = pin && (await this.load(pin, this.pinned, here).catch((error) => this.address?.endComparison(pin, error) ?? null));
      if (generation !== this.generation) return;
      if (here.gridName !== this.here?.gridName) this.hover = null;
      [this.here, this.pinned] = [here, pinned];
      for (const maps of this.pictures.keys()) if (maps !== here && maps !== pinned) this.pictures.delete(maps);
      this.report(failureOf(here, this.store.state) || (pinned ? failureOf(pinned, this.store.state) : ""));
      this.address?.check();
    } catch (error) {
      if (generation !== this.generation) return;
      if (await this.extras.recover?.()) return void this.sync();
      this.report(error instanceof Error ? error.message : String(error), true);
    } finally {
      if (generation === this.generation) this.root?.setAttribute("aria-busy", "false");
    }
    this.draw();
  }

  /** Choose a run and a step that exist, the requested ones where they do. */
  async settle() {
    if (!this.runs.length) this.runs = await this.source.runs();
    const known = this.runs.find((run) => run.name === this.state.run);
    const good = known ?? this.runs.find((run) => !run.problem) ?? this.runs[0];
    if (!good) return this.draw();
    if (this.extras.settle && !(await this.extras.settle())) return this.showNothing(good.name);
    if (good.problem) throw new Error(`Run ${good.name} cannot be shown: ${good.problem}.`);
    if (this.stepsOf !== good.name || (this.source.asks && !this.steps.includes(this.state.step))) {
      this.steps = await this.source.steps(good.name);
      this.stepsOf = good.name;
    }
    const step = this.source.asks && !this.steps.includes(this.state.step) ? 0 : nearestStep(this.steps, this.state.step);
    this.quietly({ run: good.name, step });
  }

  /** Change the state without telling its listeners. @param {Partial<import("./data/state.js").State>} change */
  quietly(change) {
    const listeners = this.store.listeners;
    this.store.listeners = [];
    this.store.set(change);
    this.store.listeners = listeners;
  }

  /**
   * Maps of an image at a step; those in `held` are reused if they are of it and have what is needed.
   * @param {Place} place
   * @param {(Maps | null)[]} held
   */
  async load({ run, step, image }, ...held) {
    const found = held.find((maps) => maps && maps.place.run === run && maps.place.step === step && maps.place.image === image);
    if (found) await askNetwork(this.source, found, this.store.state);
    if (found?.has(this.store.state)) return found;
    const index = found?.index ?? (await this.source.step(run, step, image));
    const place = { run, step, image: Math.min(image, index.images.length - 1) };
    const [maps, picture] = await Promise.all([loadMaps(this.source, place, index, this.store.state, this.everything), loadImage(this.source.imageUrl(place))]);
    await askNetwork(this.source, maps, this.store.state);
    this.pictures.set(maps, picture);
    return maps;
  }

  /** Load all layers, however many bytes they are. */
  async loadEverything() {
    this.everything = true;
    this.here = this.pinned = null;
    await this.sync();
  }

  /** @param {string} problem @param {boolean} [outdated] whether the view is not that of the state */
  report(problem, outdated = false) {
    this.parts?.classList.toggle("outdated", outdated);
    this.alert?.say(problem);
  }

  /** Whether a part that asks takes a click for itself. @param {(part: AskingPart) => boolean | undefined} offer */
  taken(offer) {
    return (this.extras.below ?? []).some((part) => offer(part));
  }

  /** Make a token the query. @param {number | "pool"} query @param {Maps | null} [maps] those in which it was chosen */
  choose(query, maps = this.here) {
    this.store.set({ query, queryGrid: maps?.gridName ?? "" });
  }

  /** Show the values of a token or cell. @param {Hover} hover */
  point(hover) {
    this.hover = hover;
    this.stage?.drawMarks();
  }

  /** Say, and show for some seconds, what changed besides what was clicked. @param {string} text */
  say(text) {
    this.toast?.say(text);
  }

  resized() {
    this.stage?.draw();
    this.sheet?.arrange();
    this.drawView();
  }

  /** Show that there is nothing to show, and how to change that. @param {string} run that will be shown */
  showNothing(run) {
    this.here = this.pinned = null;
    this.stepsOf = "";
    this.quietly({ run });
    this.report("");
    this.draw();
  }

  draw() {
    const nothing = !(this.source.asks ? this.here : this.runs.length) && !this.alert?.shown;
    if (this.empty) {
      this.empty.hidden = !nothing;
      if (this.extras.welcome) this.extras.welcome.draw();
      else setText(this.empty, nothing ? "No attention was logged yet. Train with `vit-attn fit`, or write with vit_attn.tb_plugin.summary.write_attention; the page checks again every ten seconds." : "");
    }
    if (this.parts) this.parts.hidden = !this.here;
    this.drawAround();
    if (!this.here) return;
    for (const view of this.views ?? []) view.draw();
    this.lead?.draw();
    if (!performance.getEntriesByName("first view").length) performance.mark("first view"); // for scripts/bench_plugin.py
  }

  /** Draw the open one of the further views, when its own data has come. */
  drawView() {
    if (this.here) this.research?.draw();
  }

  drawAround() {
    this.controls?.draw();
    if (this.here) this.timeline?.draw();
  }
}
