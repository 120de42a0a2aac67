// @ts-check
/** Short names of runs: what differs between them, then the end of the name. No DOM in here. */

/** Characters that the list of runs has room for. */
export const ROOM = 24;
/** Characters of the end of a name that are shown at least. */
const LEAST_END = 6;

/**
 * A short name of each run: the fewest folders and settings that tell it from all others, then its last one, cut at the front.
 * @param {string[]} names
 * @returns {string[]}
 */
export function runLabels(names) {
  const parts = names.map((name) => name.split(/[/,]/).filter(Boolean));
  const labels = names.map((name, i) => {
    if (names.length === 1) return shorten("", name);
    const telling = tellingParts(parts[i], parts.filter((_, other) => other !== i));
    const last = parts[i][parts[i].length - 1] ?? name;
    return shorten(telling.filter((part) => part !== last).join(" · "), last);
  });
  return labels.map((label, i) => (labels.indexOf(label) === labels.lastIndexOf(label) ? label : names[i]));
}

/** The parts of a name that together no other name has. @param {string[]} own @param {string[][]} others */
function tellingParts(own, others) {
  /** @type {string[]} */
  const chosen = [];
  for (let left = others; left.length; left = left.filter((other) => other.includes(chosen[chosen.length - 1]))) {
    const tells = (/** @type {string} */ part) => left.filter((other) => !other.includes(part)).length;
    const best = own.reduce((a, b) => (tells(b) > tells(a) ? b : a), own[0]);
    if (!tells(best)) break; // another has all of these parts
    chosen.push(best);
  }
  return own.filter((part) => chosen.includes(part));
}

/** What differs, whole where there is room, and the end of the name. @param {string} start @param {string} last */
function shorten(start, last) {
  const whole = start ? `${start} · ${last}` : last;
  if (whole.length <= ROOM) return whole;
  const room = Math.max(LEAST_END, ROOM - (start ? start.length + 4 : 1));
  const end = last.slice(-room);
  const word = end.search(/[-_=./]/) + 1; // begin at a word, if one begins early
  return `${start ? `${start} · ` : ""}…${end.slice(word <= room / 2 ? word : 0)}`;
}
