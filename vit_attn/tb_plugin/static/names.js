// @ts-check
/** Short names of runs: what differs between them, then the end of the name. No DOM in here. */

/** Characters that the list of runs has room for. */
export const ROOM = 28;

/**
 * A short name of each run: the folders and settings that not all runs have; the last of them loses its common beginning.
 * @param {string[]} names
 * @returns {string[]}
 */
export function runLabels(names) {
  const parts = names.map((name) => name.split(/[/,]/).filter(Boolean));
  const inAll = (/** @type {string} */ part) => names.length > 1 && parts.every((each) => each.includes(part));
  const own = parts.map((each) => each.filter((part) => !inAll(part)));
  const cut = names.length > 1 ? commonBeginning(own.map((each) => each[each.length - 1] ?? "")) : 0;
  const labels = own.map((each, i) => {
    const last = each[each.length - 1];
    const end = cut && each.length > 1 ? `…${last.slice(cut)}` : last;
    return shorten([...each.slice(0, -1), end].filter(Boolean).join(" · ") || names[i]);
  });
  return labels.map((label, i) => (labels.indexOf(label) === labels.lastIndexOf(label) ? label : names[i]));
}

/** Length of the beginning that all have in common, up to a separator. @param {string[]} words */
function commonBeginning(words) {
  const [first = "", ...others] = words;
  let common = 0;
  while (common < first.length && others.every((word) => word[common] === first[common])) common++;
  return common === first.length ? 0 : Math.max(...["-", "_", "=", "."].map((separator) => first.lastIndexOf(separator, common - 1) + 1), 0);
}

/** The beginning and the end of a text that has no room. @param {string} text */
function shorten(text) {
  const end = Math.floor(0.6 * ROOM);
  return text.length <= ROOM ? text : `${text.slice(0, ROOM - end - 1)}…${text.slice(-end)}`;
}

