// @ts-check
/** The guide: how to read the page, and all terms. A page of the plugin, and a dialog of this one. */

import { h } from "../drawing/dom.js";
import { CHAPTERS } from "./terms.js";

const READING = [
  "The first line says what is seen. The image is on the left, its map in the middle, and the matrix of all tokens on the right. On a narrow screen the map comes first.",
  "Click a patch, or a tile below the map, to make it the query: the map, the matrix and the small maps of all heads follow. Point at a patch to read its value.",
  "The slider goes through the training steps that were logged. Pin one as A to compare another step, or another run on the same images, with it.",
  "Every head of every layer is a small map below. Click one to see it large, in place.",
  "On the page of vit-attn explore a network runs and answers at once: drop a picture, choose any class, method and patch. A file of pictures, which vit-attn attend or vit_attn.show wrote, has the answers that were put into it. There are no training steps and no labels in either.",
  "The notes at the end state what the view does not show: what is left out, what the method ignores, and whether the map is better than baselines. Layers, heads, images, rows and columns are counted from 1.",
];

/** Links to papers, by arXiv id. @param {[string, string][]} papers */
export function paperLinks(papers) {
  return papers.map(([name, id]) => h("a", { href: `https://arxiv.org/abs/${id}`, target: "_blank", rel: "noopener" }, `${name}, arXiv ${id}`));
}

/** Headings, and each term with its two lines and paper. */
export function guideContent() {
  const term = (/** @type {string} */ key, /** @type {import("./terms.js").Term} */ { name, text, papers = [] }) => [
    h("dt", { id: `term-${key}` }, name.replace(/^(an?|the) /, "")), h("dd", {}, h("p", {}, text), h("p", { class: "sources" }, ...paperLinks(papers)))];
  return [
    h("h1", {}, "How to read the Attention tab"),
    h("ul", {}, ...READING.map((line) => h("li", {}, line))),
    ...CHAPTERS.flatMap(([heading, terms]) => [h("h2", {}, heading), h("dl", {}, ...Object.entries(terms).flatMap(([key, each]) => term(key, each)))]),
  ];
}

/** The guide in a dialog. @param {string} [key] of the term to begin at */
export function openGuide(key = "") {
  const dialog = h("dialog", { class: "guide", "aria-label": "Guide", onclose: () => dialog.remove() },
    h("form", { method: "dialog" }, h("button", {}, "Close")), h("div", {}, ...guideContent()));
  dialog.querySelector("h1")?.replaceWith(h("h2", { class: "title" }, "How to read the Attention tab")); // the page has its own h1
  document.body.append(dialog);
  dialog.showModal();
  dialog.querySelector(`#term-${key}`)?.scrollIntoView({ block: "center" });
}

/** A way to the guide: the page that the plugin serves, or the dialog in a file that has no server. @param {import("../data/source.js").ServerSource | import("../data/source.js").EmbeddedSource} source */
export function guideLink(source) {
  if ("base" in source) return h("a", { class: "button", href: new URL("static/guide.html", source.base).href, target: "_blank", rel: "noopener" }, "Guide");
  return h("button", { type: "button", onclick: () => openGuide() }, "Guide");
}
