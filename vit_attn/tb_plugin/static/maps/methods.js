// @ts-check
/** Attribution methods of a step: those that the page computes from the maps, and those that were logged. No DOM in here. */

/** @typedef {{name: string, label: string, reference: string, class_specific: boolean, has_query: boolean, rows: boolean}} Method rows: whether each image has its map */
/** @typedef {{methods?: Method[], relevance: boolean, asks?: boolean, ofPictures?: boolean, classes?: string[]}} Logged part of the index; asks: whether a running network answers; ofPictures: whether a file of pictures, or such a network, and no log */

/** @typedef {{targets?: string[], target_rows?: Record<string, (number | null)[][]>}} Targets classes of an image, the predicted one first, and the maps of the pooled row for each, by method */

/** @type {[string, string][]} name and text of what the page computes */
const COMPUTED = [["relevance", "Relevance"], ["raw", "Raw"], ["rollout", "Rollout"]];

/** Name and text of each method that can be chosen. @param {Logged} index @returns {[string, string][]} */
export function methodChoices(index) {
  const logged = (index.methods ?? []).filter(({ name, rows }) => rows && !COMPUTED.some(([computed]) => computed === name));
  return [...COMPUTED, ...logged.map(({ name, label }) => /** @type {[string, string]} */ ([name, label]))];
}

/** The same in groups: those for a class, and those that are the same for each class. @param {Logged} index @returns {import("../drawing/dom.js").Group[]} */
export function methodGroups(index) {
  const of = (/** @type {boolean} */ specific) => methodChoices(index).filter(([name]) => isClassSpecific(index, name) === specific);
  return [["For a class (class-specific)", of(true)], ["Attention alone (class-agnostic)", of(false)]];
}

/** A method whose map of the pooled row was logged; nothing for those that the page computes. @param {Logged} index @param {string} name */
export function loggedMethod(index, name) {
  return index.methods?.find((method) => method.rows && method.name === name);
}

/** That something is here, in a sentence. @param {Logged} index */
export function isHereWords({ ofPictures }) {
  return ofPictures ? "is in this file" : "was logged";
}

/** Whether a step has what a method needs. @param {Logged} index @param {string} name */
export function hasMethod(index, name) {
  return name === "raw" || name === "rollout" || (name === "relevance" ? index.relevance || canAsk(index, name) : Boolean(loggedMethod(index, name)));
}

/** Whether a running network answers questions by a method. @param {Logged} index @param {string} name */
function canAsk({ asks, methods = [] }, name) {
  return Boolean(asks && methods.some((method) => method.name === name));
}

/** Whether a method has one map of each layer, or of the layers up to it. @param {string} name */
export function isByLayer(name) {
  return name === "raw" || name === "rollout";
}

/** Whether a method's maps are for the predicted class; they have no unit, while others are fractions of attention. @param {Logged} index @param {string} name */
export function isClassSpecific(index, name) {
  return name === "relevance" || Boolean(loggedMethod(index, name)?.class_specific);
}

/** Position of a state's target class among those that were logged for an image and method: 0 is the predicted class; -1 if it was not logged. @param {Logged} index @param {Targets} about @param {string} method @param {string} target */
export function targetRow(index, about, method, target) {
  if (!target || !isClassSpecific(index, method)) return 0;
  const row = about.targets?.indexOf(target) ?? -1;
  return about.target_rows?.[method]?.[row] ? row : -1;
}

/** Whether a class-specific map of an image can be for a class that is not the predicted one. @param {Logged} index @param {Targets & {top: [string, number | null][]}} about @param {string} method @param {string} target */
export function hasTarget(index, about, method, target) {
  if (!index.asks) return targetRow(index, about, method, target) > 0;
  return isClassSpecific(index, method) && target !== about.top[0]?.[0] && Boolean(index.classes?.includes(target));
}

/** Classes that a method's map of an image can be for, the predicted one first. @param {Logged} index @param {Targets & {top: [string, number | null][]}} about @param {string} method @returns {string[]} */
export function targetChoices(index, about, method) {
  if (!isClassSpecific(index, method) || !about.top.length) return [];
  const others = (about.targets ?? []).slice(1).filter((name) => targetRow(index, about, method, name) > 0);
  return [about.top[0][0], ...others];
}

/** What a class-specific map is for, in a sentence. @param {string} target as it is shown */
export function targetWords(target) {
  return target ? `the class ${target}` : "the predicted class";
}

/** How a method is named in a sentence. @param {Logged} index @param {string} name */
export function methodLabel(index, name) {
  return loggedMethod(index, name)?.label ?? name;
}
