// @ts-check
/** Module that TensorBoard imports into the tab's frame. */

import { h } from "./drawing/dom.js";
import { Page } from "./page.js";
import { ServerSource } from "./data/source.js";
import { Store } from "./data/state.js";

/** The style sheets, in their order; ../page_files.py has the same. */
const STYLES = ["base", "words", "parts", "pictures", "sheet", "narrow", "views"];

/** Build the page; TensorBoard calls it. */
export async function render() {
  const styles = STYLES.map((name) => h("link", { rel: "stylesheet", href: new URL(`css/${name}.css`, import.meta.url).href }));
  const styled = Promise.all(styles.map((style) => new Promise((resolve) => style.addEventListener("load", resolve))));
  document.head.append(...styles);
  document.documentElement.lang = "en";
  document.title = "Attention";
  await styled; // a page without its style would jump
  const page = new Page(document.body, new ServerSource(new URL("../", import.meta.url)), new Store("vit_attn.attention", storage()));
  await page.start();
}

/** The browser's storage, where it is allowed. */
export function storage() {
  try {
    return window.localStorage;
  } catch {
    return null;
  }
}
