// @ts-check
/** Finding a class among a thousand, and which pictures a comparison follows. No DOM in here. */

/** @typedef {import("../data/state.js").Place} Place */
/** @typedef {{name: string, probability: number | null}} Candidate */

/**
 * Classes whose name has all words of a text, those that begin with it first, then by probability.
 * @param {string[]} names
 * @param {number[] | null} probabilities of all classes, where they are known
 * @param {string} text
 * @returns {Candidate[]}
 */
export function findClasses(names, probabilities, text) {
  const words = plain(text).split(/[\s_,]+/).filter(Boolean);
  const found = names.flatMap((name, index) => {
    const own = plain(name);
    if (!words.every((word) => own.includes(word))) return [];
    const first = words.length && own.startsWith(words[0]) ? 0 : words.every((word) => own.split(/[\s_,-]+/).some((part) => part.startsWith(word))) ? 1 : 2;
    return [{ name, probability: probabilities?.[index] ?? null, first }];
  });
  return found.sort((a, b) => a.first - b.first || (b.probability ?? 0) - (a.probability ?? 0)).map(({ name, probability }) => ({ name, probability }));
}

/** Without case and accents. @param {string} text */
function plain(text) {
  return text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase().trim();
}

/**
 * What is compared with, after another picture was chosen: another network, or the same one with other cuts, goes to the
 * new picture, too; a picture that was pinned stays.
 * @param {Place | null} pin
 * @param {Place} before what was shown
 * @param {number} image that is chosen now
 * @returns {Place | null}
 */
export function followPicture(pin, before, image) {
  if (!pin || pin.image !== before.image || (pin.run === before.run && pin.step === before.step)) return pin;
  return { ...pin, image };
}

/** Bytes of a picture that the server takes at most. */
const MOST_BYTES = 50e6;

/** Why a file is not sent, or nothing. @param {{name: string, size: number}} file */
export function sizeProblem({ name, size }) {
  const megabytes = Math.ceil(size / 1e5) / 10;
  return size > MOST_BYTES ? `${name || "The picture"} is ${megabytes} MB; pictures of up to ${MOST_BYTES / 1e6} MB are taken` : "";
}

/** The rows of the list of top classes: those of the index, and the chosen class where it is not among them. @param {[string, number | null][]} top @param {string} target @param {string[]} names @param {number[] | null} probabilities @returns {Candidate[]} */
export function listedClasses(top, target, names, probabilities) {
  const listed = top.map(([name, probability]) => ({ name, probability }));
  const index = names.indexOf(target);
  if (index < 0 || listed.some(({ name }) => name === target)) return listed;
  return [...listed, { name: target, probability: probabilities?.[index] ?? null }];
}
