// @ts-check
/** Module of the page that `vit-attn explore` serves: the tab's own page, with networks that answer. */

import { Asking } from "./asking/panel.js";
import { h } from "./drawing/dom.js";
import { storage } from "./index.js";
import { Beside } from "./live/beside.js";
import { Pictures } from "./live/pictures.js";
import { Predictions } from "./live/predictions.js";
import { TargetSearch } from "./live/combobox.js";
import { LiveSource } from "./data/live_source.js";
import { Page } from "./page.js";
import { Store } from "./data/state.js";

/** The style sheets, in their order. */
const STYLES = ["base", "words", "parts", "pictures", "sheet", "narrow", "views", "live", "asking"];

/** The page, with the parts that it has besides those of the tab. @param {LiveSource} source @param {Store} store */
function makePage(source, store) {
  /** @type {Pictures[]} */
  const made = [];
  const page = new Page(document.body, source, store, (page) => {
    const pictures = new Pictures(page, source);
    const predictions = new Predictions(page, source);
    const asking = new Asking(page, source);
    made.push(pictures);
    return {
      welcome: { element: pictures.element, draw: () => (pictures.draw(), nameWindow(page)) },
      above: [predictions],
      below: [asking, asking.trials],
      target: new TargetSearch(page, () => predictions.probabilities),
      compare: new Beside(page),
      settle: () => pictures.settle(),
      recover: () => pictures.recover(),
    };
  });
  made[0].place();
  return page;
}

/** The title of the window: the picture and the network. @param {Page} page */
function nameWindow({ here }) {
  document.title = [here?.about.name, here?.place.run, "vit-attn explore"].filter(Boolean).join(" · ");
}

async function start() {
  const styles = STYLES.map((name) => h("link", { rel: "stylesheet", href: new URL(`css/${name}.css`, import.meta.url).href }));
  const styled = Promise.all(styles.map((style) => new Promise((resolve) => style.addEventListener("load", resolve))));
  document.head.append(...styles);
  await styled; // a page without its style would jump
  await makePage(new LiveSource(new URL("../", import.meta.url)), new Store("vit_attn.explore", storage())).start();
}

start();
