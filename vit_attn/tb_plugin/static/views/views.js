// @ts-check
/** Further views of the same image, step and query, one open at a time. */

import { Channels } from "./channels.js";
import { Curves } from "./curves.js";
import { h, setAttribute } from "../drawing/dom.js";
import { HeadColours } from "./head_colours.js";
import { ImageGrid } from "./image_grid.js";

/** @typedef {import("../data/state.js").State["view"]} ViewName */

/** @type {[Exclude<ViewName, "">, string][]} */
const VIEW_NAMES = [["colours", "Heads in colours"], ["images", "All images"], ["curves", "Heads over training"], ["channels", "Why this weight"]];

export class Views {
  /** @param {import("../page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.parts = { colours: new HeadColours(page), images: new ImageGrid(page), curves: new Curves(page), channels: new Channels(page) };
    this.names = VIEW_NAMES.filter(([name]) => name !== "curves" || !page.source.ofPictures); // one step has no curve
    this.tabs = this.names.map(([name, text]) => h("button", { type: "button", role: "tab", id: `view-${name}`, "aria-controls": "further-view", onclick: () => this.toggle(name) }, text));
    this.panel = h("div", { role: "tabpanel", id: "further-view", hidden: true });
    const list = h("div", { class: "tabs", role: "tablist", "aria-label": "Further views" }, ...this.tabs);
    list.addEventListener("keydown", (event) => this.key(event));
    this.element = h("section", { class: "views", "aria-label": "Further views" }, list, this.panel);
  }

  /** Name of the open view. */
  get title() {
    return this.names.find(([name]) => name === this.page.state.view)?.[1] ?? "";
  }

  /** Open a view, or close it if it is open. @param {Exclude<ViewName, "">} name */
  toggle(name) {
    this.page.store.set({ view: this.page.state.view === name ? "" : name });
  }

  /** Open the next view; after the last one none. */
  next() {
    const names = /** @type {ViewName[]} */ (["", ...this.names.map(([name]) => name)]);
    this.page.store.set({ view: names[(names.indexOf(this.page.state.view) + 1) % names.length] });
    this.element.scrollIntoView({ block: "nearest" });
  }

  /** Arrow keys move between the tabs; Enter or space opens one. @param {KeyboardEvent} event */
  key(event) {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const at = this.tabs.indexOf(/** @type {HTMLButtonElement} */ (document.activeElement));
    this.tabs[(at + by + this.tabs.length) % this.tabs.length].focus();
    event.preventDefault();
    event.stopPropagation();
  }

  draw() {
    const view = this.names.find(([name]) => name === this.page.state.view)?.[0] ?? "";
    this.names.forEach(([name], i) => {
      setAttribute(this.tabs[i], "aria-selected", view === name);
      this.tabs[i].tabIndex = view === name || (!view && i === 0) ? 0 : -1;
    });
    this.panel.hidden = !view;
    if (!view) return;
    const part = this.parts[view];
    if (this.panel.firstElementChild !== part.element) this.panel.replaceChildren(part.element);
    setAttribute(this.panel, "aria-labelledby", `view-${view}`);
    part.draw();
  }
}
