// @ts-check
/** What deletion and insertion say of the map that is shown, and of no other. No DOM in here. */

/** @typedef {import("./view.js").Maps} Maps */
/** @typedef {import("./state.js").State} State */
/** @typedef {(number | null)[]} Values value, random orders' mean, margin, centre first's value, margin */
/** @typedef {Record<string, Record<string, Values>>} Measures by method and measure */
/** @typedef {"better" | "same" | "worse" | "unknown"} Relation */

/** @type {[string, boolean][]} measures, and whether higher is better */
const MEASURES = [["deletion", false], ["insertion", true]];
const WORDS = { better: "better than", same: "no measurable difference from", worse: "worse than", unknown: "not comparable with" };
const BOTH = { better: "better than both", same: "no measurable difference from either", worse: "worse than both", unknown: "not comparable, since the network gave NaN or infinity" };
/** @type {Record<string, string>} */
const NAMES = { "relevance": "relevance", "last layer": "the last layer, mean of heads", "last layer, pooled": "the last layer, mean of heads, weighed as the pool by attention does", "rollout, mean": "rollout, mean of heads", "rollout, max": "rollout, maximum of heads", "rollout, min": "rollout, minimum of heads" };
/** Of a network that pools by attention: the rows of its last layer, mixed as the pool weighs them. */
const POOLED_LAYER = "last layer, pooled";
const CHANCE = " (± is what chance makes of a difference, 95 %, and at least 0.01)";
const FAITHFUL = "So it ranks patches as this network uses them, whether the network is right or not.";
const NOTHING = "A map that is not better than both has shown nothing.";

/** The name under which what a state shows is judged; null for what never is. @param {Maps} maps @param {State} state */
export function judgedAs(maps, state) {
  if (state.query !== "pool") return null;
  if (state.method === "relevance") return "relevance";
  if (maps.layerOf(state) !== maps.layers.length - 1) return null;
  const head = maps.headOf(state);
  if (state.method === "rollout") return `rollout, ${head}`;
  if (head !== "mean") return null;
  return maps.index.judged?.methods[POOLED_LAYER] ? POOLED_LAYER : "last layer"; // else the pool's own row has that name
}

/** A difference counts where it is larger than its margin. @param {number | null} value @param {number | null} baseline @param {number | null} margin @param {boolean} higher @returns {Relation} */
export function relation(value, baseline, margin, higher) {
  if (value === null || baseline === null || margin === null) return "unknown";
  const gain = higher ? value - baseline : baseline - value;
  return Math.abs(gain) <= margin ? "same" : gain > 0 ? "better" : "worse";
}

/** @param {Maps} maps @param {State} state @returns {string[]} */
export function verdictNotes(maps, state) {
  const name = judgedAs(maps, state);
  const { judged } = maps.index;
  const old = maps.about.verdict;
  if (!name) return ["Not judged: deletion and insertion are measured for the pooled row alone, by relevance, by the last layer's mean of heads, and by rollout through all layers."];
  if (!judged && old && name === "relevance") return [oldVerdict(old)];
  const overall = judged?.methods[name];
  if (!judged || !overall) return [`Not judged: deletion and insertion of ${NAMES[name]} were not logged at this step, so nothing here says that the map is faithful.`];
  const whole = state.hide ? ", nothing left out" : "";
  const notes = [];
  const [one, many] = [maps.about.judged?.[name], judged.images > 1];
  if (many || !one) notes.push(`Verdict on ${NAMES[name]}${whole}, over ${judged.images} images with ${judged.orders} random orders each${CHANCE}: ${measured(overall)}`);
  if (one) notes.push(`${many ? "The same of this image alone" : `Verdict on ${NAMES[name]}${whole}, of this image with ${judged.orders} random orders${CHANCE}`}: ${measured(one)}`);
  return notes;
}

/** @param {Record<string, Values>} measures */
function measured(measures) {
  const found = MEASURES.map(([measure, higher]) => {
    const [value, random, randomMargin, centre, centreMargin] = measures[measure];
    const relations = [relation(value, random, randomMargin, higher), relation(value, centre, centreMargin, higher)];
    const beside = `random ${number(random)} ± ${number(randomMargin)}, centre first ${number(centre)} ± ${number(centreMargin)}`;
    return { better: relations.every((each) => each === "better"), text: `${measure} ${number(value)} (${higher ? "higher" : "lower"} is better; ${beside}): ${words(relations)}` };
  });
  return `${found.map(({ text }) => text).join("; ")}.${found.every(({ better }) => better) ? ` ${FAITHFUL}` : ` ${NOTHING}`}`;
}

/** @param {Relation[]} relations to random orders and to centre first */
function words([random, centre]) {
  return random === centre ? BOTH[random] : `${WORDS[random]} random, ${WORDS[centre]} centre first`;
}

/** What earlier versions logged. @param {Record<string, number | null>} old */
function oldVerdict(old) {
  const pair = (/** @type {string} */ name) => `${name} ${number(old[name])} beside ${number(old[`random_${name}`])}`;
  return `Logged by an earlier version, of relevance beside one random order: ${pair("deletion")}, ${pair("insertion")}. One order has no spread, so whether that is more than chance is not known.`;
}

/** @param {number | null | undefined} value */
function number(value) {
  return value?.toFixed(3) ?? "not a number";
}
