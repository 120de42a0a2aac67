// @ts-check
/** Ground truth of an image: regions of patches by name. No DOM in here. */

/** @typedef {{name: string, patches: number[], isAnswer: boolean}} Region */
/** @typedef {{ground_truth?: Record<string, number[]> | null, answer_region?: string | null, answer?: Record<string, number[]> | null}} Truth answer: of earlier versions */

/** The answer region, and others that do not contain it; none that is empty in this image. @param {Truth} about @returns {Region[]} */
export function regionsOf({ ground_truth: truth, answer_region: answer, answer: earlier }) {
  const entries = Object.entries(truth ?? earlier ?? {});
  const inAnswer = new Set((answer && truth?.[answer]) || []);
  const contains = (/** @type {number[]} */ patches) => inAnswer.size > 0 && [...inAnswer].every((patch) => patches.includes(patch));
  const regions = entries.map(([name, patches]) => ({ name: name.replaceAll("_", " "), patches, isAnswer: name === answer }));
  const shown = regions.filter(({ patches, isAnswer }) => patches.length && (isAnswer || !contains(patches)));
  return shown.sort((a, b) => Number(b.isAnswer) - Number(a.isAnswer));
}
