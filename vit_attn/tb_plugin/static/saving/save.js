// @ts-check
/** The current view as files: a picture that needs no page around it, and its numbers. */

import { h } from "../drawing/dom.js";
import { csvText, npzBytes } from "./numbers.js";
import { drawPicture } from "./picture.js";
import { aboutView, columnsOfView, fileName } from "./record.js";

/** @typedef {import("../page.js").Page} Page */

/** @param {Page} page */
export async function savePicture(page) {
  (await drawPicture(page))?.toBlob((blob) => blob && download(page, "png", blob));
}

/** @param {Page} page */
export function saveCsv(page) {
  const { here, pinned, stage, state } = page;
  if (!here || !stage?.shown) return;
  const text = csvText(aboutView(here, state, pinned), columnsOfView(here, stage.shown, stage.shownA, stage.comparison?.change));
  download(page, "csv", new Blob([text], { type: "text/csv" }));
}

/** @param {Page} page */
export function saveNpz(page) {
  const { here, pinned, stage, state } = page;
  if (!here || !stage?.shown) return;
  const { shown, shownA: a, comparison, matrix } = stage;
  const change = comparison?.change;
  const arrays = [{ name: "values", shape: [shown.values.length], values: shown.values }];
  if (a) arrays.push({ name: "values_of_A", shape: [a.values.length], values: a.values });
  if (change) arrays.push({ name: "B_minus_A", shape: [change.values.length], values: change.values });
  if (matrix.values) arrays.push({ name: "matrix", shape: [here.tokens, here.tokens], values: matrix.values });
  download(page, "npz", new Blob([/** @type {any} */ (npzBytes(arrays, aboutView(here, state, pinned)))]));
}

/** @param {Page} page @param {string} ending @param {Blob} blob */
function download({ here }, ending, blob) {
  if (!here) return;
  const link = h("a", { href: URL.createObjectURL(blob), download: `${fileName(here)}.${ending}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
