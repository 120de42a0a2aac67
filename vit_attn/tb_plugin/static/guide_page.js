// @ts-check
/** The guide as a page of its own, which the plugin serves. */

import { h } from "./drawing/dom.js";
import { guideContent } from "./words/guide.js";

document.documentElement.dataset.theme = window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
document.body.append(h("main", { class: "guide" }, ...guideContent()));
document.getElementById(location.hash.slice(1))?.scrollIntoView();
