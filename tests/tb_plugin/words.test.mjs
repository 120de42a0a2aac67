// Words and places of the page: its sentence, scales, names of runs, places of small maps. Run by test_arithmetic.py.
import assert from "node:assert/strict";
import test from "node:test";

const folder = new URL("../../vit_attn/tb_plugin/static/", import.meta.url);
const { Maps } = await import(new URL("maps/view.js", folder));
const { DEFAULTS } = await import(new URL("data/state.js", folder));
const { invitation, methodPhrase, sentenceOf, sentenceOfBoth } = await import(new URL("words/sentence.js", folder));
const { LEAST_TIMES, colourAt, diverging, isLight, mapScale, probability, sequential } = await import(new URL("maps/colour.js", folder));
const { mostOf } = await import(new URL("maps/compare.js", folder));
const { scaleNote } = await import(new URL("parts/notes.js", folder));
const { ROOM, runLabels } = await import(new URL("words/names.js", folder));
const { arrangement, neighbour } = await import(new URL("parts/grid.js", folder));
const { CHAPTERS, TERMS, termOf } = await import(new URL("words/terms.js", folder));
const { methodGroups } = await import(new URL("maps/methods.js", folder));

const LOGGED = [
  { name: "relevance", label: "relevance", reference: "", class_specific: true, has_query: true, rows: false },
  { name: "legrad", label: "LeGrad", reference: "", class_specific: true, has_query: false, rows: true },
  { name: "value_weighted", label: "value-weighted attention", reference: "", class_specific: false, has_query: true, rows: true },
];
const INDEX = { grid: [2, 2], prefix: ["CLS", "R1"], layers: ["a", "b", "c"], heads: [4, 4, 4], pooled: [1, 0, 0, 0, 0, 0], relevance: true, note: "", methods: LOGGED, images: [{ label: "cat", top: [["dog", 0.6], ["cat", 0.3]], right: false, size: [8, 8] }] };
const maps = (change = {}, about = {}) => new Maps({ run: "r", step: 0, image: 0 }, { ...INDEX, ...change, images: [{ ...INDEX.images[0], ...about }] }, [null, null, null], null);
const said = (change, index = {}, about = {}) => sentenceOf(maps(index, about), { ...DEFAULTS, ...change });

test("the sentence names the query, the layers, the heads and the method", () => {
  assert.equal(said({ method: "rollout" }), "What the CLS token attends to, through all layers (attention rollout).");
  assert.equal(said({ method: "rollout", layer: 1, head: "max" }), "What the CLS token attends to, through layers 1 to 2, maximum of heads (attention rollout).");
  assert.equal(said({ method: "rollout", layer: 0 }), "What the CLS token attends to, through layer 1 (attention rollout).");
  assert.equal(said({ method: "raw", layer: 1, head: 2 }), "What the CLS token attends to, in layer 2 of 3, head 3 (raw attention).");
  assert.equal(said({ method: "raw" }), "What the CLS token attends to, in layer 3 of 3, the mean of its 4 heads (raw attention).");
  assert.equal(said({ method: "raw" }, { heads: [1, 1, 1] }), "What the CLS token attends to, in layer 3 of 3, its one head (raw attention).");
  assert.equal(said({ method: "raw", query: 5 }), "What the patch in row 2, column 2 attends to, in layer 3 of 3, the mean of its 4 heads (raw attention).");
  assert.equal(said({ method: "raw", query: 1, direction: "to" }), "What attends to register R1, in layer 3 of 3, the mean of its 4 heads (raw attention).");
  assert.equal(said({ method: "value_weighted" }), "What the CLS token attends to, through the network (value-weighted attention).");
});

test("the sentence names what a network pools: CLS, patches, several tokens, or a pooling attention", () => {
  const rollout = (index, about) => said({ method: "rollout" }, index, about);
  assert.equal(rollout({ prefix: [], pooled: [0.25, 0.25, 0.25, 0.25] }), "What the patches, averaged, attend to, through all layers (attention rollout).");
  assert.equal(rollout({ pooled: [0, 0, 0.25, 0.25, 0.25, 0.25] }), "What the patches, averaged, attend to, through all layers (attention rollout).");
  assert.equal(rollout({ pooled: Array(6).fill(1 / 6) }), "What all tokens, averaged, attend to, through all layers (attention rollout).");
  assert.equal(rollout({ prefix: ["CLS", "DIST"], pooled: [0.5, 0.5, 0, 0, 0, 0] }), "What the CLS token and the DIST token attend to, through all layers (attention rollout).");
  assert.equal(rollout({}, { pooled: [0, 0, 0.1, 0.2, 0.3, 0.4] }), "What the network's pooling attention attends to, through all layers (attention rollout).");
});

test("the sentence names the class of a class-specific map, and a query that it is for", () => {
  assert.equal(said({ method: "relevance" }), "Which patches speak for the prediction “dog” (relevance: attention weighted by gradients, through all layers).");
  assert.match(said({ method: "relevance", query: 2 }), /^Which tokens matter to the patch in row 1, column 1 for the prediction “dog”/);
  assert.match(said({ method: "relevance", query: 2, direction: "to" }), /^To which tokens the patch in row 1, column 1 matters for/);
  assert.equal(said({ method: "legrad" }), "Which patches speak for the prediction “dog” (LeGrad).");
});

test("a sentence of two sides says once what is the same, and else both", () => {
  const rollout = said({ method: "rollout" });
  assert.equal(sentenceOfBoth(rollout, rollout), "A and B: what the CLS token attends to, through all layers (attention rollout).");
  const other = said({ method: "legrad" }, {}, { top: [["cat", 0.6], ["dog", 0.3]] });
  assert.equal(sentenceOfBoth(other, said({ method: "legrad" })), "A: which patches speak for the prediction “cat” (LeGrad); B: which patches speak for the prediction “dog” (LeGrad).");
});

test("what to do next is what can be done", () => {
  const next = (change) => invitation(maps(), { ...DEFAULTS, ...change });
  assert.equal(next({ method: "raw" }), "Click a patch to see what it attends to.");
  assert.equal(next({ method: "raw", query: 3, direction: "to" }), "Click a patch to see what attends to it.");
  assert.equal(next({ method: "relevance" }), "Click a patch to see which patches matter to it.");
  assert.match(next({ method: "legrad" }), /The method has no query: to click patches, choose/);
  assert.match(next({ method: "value_weighted" }), /It was logged for this row only/);
  assert.equal(methodPhrase(INDEX, "legrad"), "LeGrad");
});

test("uniform attention is a quarter of the scale at most, and the page says where the scale ends", () => {
  const uniform = mapScale(1 / 50, true, 50);
  assert.equal(uniform.high, LEAST_TIMES / 50);
  assert.equal(uniform.uniform, 1 / 50);
  assert.equal(colourAt(uniform, 1 / 50) / 3, Math.round(255 / LEAST_TIMES));
  const shown = (...values) => ({ values: Float32Array.from(values), hidden: new Set(), total: 1, hiddenMass: 0, sinks: [], max: 0 });
  assert.match(scaleNote(maps(), uniform, shown(0, 0, 0.02, 0.02, 0.02, 0.02)), /The largest value, 2\.00.%, is less than 4 × uniform attention \(1\/6 = 2\.00.%\)/);
  assert.equal(mapScale(0.9, true, 50).high, 0.9);
  assert.equal(scaleNote(maps(), mapScale(0.9, true, 50), shown(0, 0, 0.9, 0, 0, 0)), "");
  assert.equal(scaleNote(maps(), mapScale(0.9, true, 50), shown(0, 0, 0.5, 0, 0, 0)), ""); // the other side has 0.9
  assert.match(scaleNote(maps(), uniform, shown(0.9, 0, 0.02, 0, 0, 0)), /Colours reach up to 8\.00.%, for the patches; CLS has more\./);
  assert.equal(mapScale(0.3, true, 2).high, 1); // no more than all attention
  assert.deepEqual([mapScale(0.001, false, 50).high, mapScale(0.001, false, 50).uniform], [0.001, undefined]); // no unit
  assert.equal(scaleNote(maps(), mapScale(0.001, false, 50), shown(0, 0, 0.001, 0, 0, 0)), "");
});

test("colours are those of the patches that are shown, whatever a prefix token has", () => {
  const shown = { values: Float32Array.from([0.9, 0, 0.1, 0.4, 0.2, 0]), hidden: new Set([3]), total: 1, hiddenMass: 0, sinks: [], max: 0.9 };
  assert.equal(mostOf(maps(), shown), Math.fround(0.2));
  assert.equal(mostOf(maps(), null), 0);
});

test("probabilities are whole numbers where these say enough, and none rounds to certainty", () => {
  const plain = (value) => probability(value).replace("\u202f", "");
  assert.deepEqual([1, 0.9999, 0.62, 0.0999, 0.062, 0.004, 0, NaN, null].map(plain), ["100%", ">99%", "62%", "10%", "6.2%", "<1%", "0%", "not a number", "not a number"]);
});

test("names of runs show what differs, then their end, and stay different", () => {
  assert.deepEqual(runLabels(["c0/20261126-134358-8efa", "q0/20261126-134252-0c26"]), ["c0 · …134358-8efa", "q0 · …134252-0c26"]);
  const sweep = ["lr=0.001,seed=0", "lr=0.003,seed=0", "lr=0.003,seed=1"].map((settings) => `sweep/${settings}/version_12_with_a_very_long_name`);
  assert.deepEqual(runLabels(sweep), ["lr=0.001 · …long_name", "lr=0.003 · seed=0 · …name", "seed=1 · …long_name"]);
  assert.deepEqual(runLabels(["good", "made/up", "made"]), ["good", "up", "made"]);
  assert.deepEqual(runLabels(["a/b", "a,b"]), ["a/b", "a,b"]); // the same parts: the whole names
  assert.deepEqual(runLabels([]), []);
  const [one] = runLabels(["a_very_long_experiment/20261126-134358-8efa"]);
  assert.ok(one.startsWith("…") && one.endsWith("134358-8efa") && one.length <= ROOM);
});

test("small maps fill the width: layers in blocks side by side, each under its own headings", () => {
  const two = arrangement([4, 4, 4], 1150, false, 1);
  assert.deepEqual([two.cell(0, 0), two.cell(1, 3), two.cell(2, 0)], ["2 / 2", "3 / 5", "2 / 7"]);
  assert.deepEqual(two.heads.filter(({ text }) => text === "head 1").map(({ area }) => area), ["1 / 2", "1 / 7"]);
  assert.deepEqual(two.layers.map(({ text, area }) => `${text} ${area}`), ["layer 1 2 / 1", "layer 2 3 / 1", "layer 3 2 / 6"]);
  assert.equal(two.enlarged, "4");
  const one = arrangement([2, 3], 300, false, 0);
  assert.deepEqual([one.cell(0, 1), one.enlarged, one.cell(1, 0)], ["2 / 3", "3", "4 / 2"]); // the layer below moves down
  assert.equal(arrangement([12, 12], 1150, false).columns.match(/repeat/g).length, 1);
});

test("arrow keys go to the next head and layer, or along lines that wrap", () => {
  const order = [[0, 0], [0, 1], [1, 0], [1, 1], [1, 2]].map(([layer, head]) => ({ layer, head }));
  const to = (at, key, perRow = 0) => neighbour(order, at, key, perRow);
  assert.deepEqual([to(0, "ArrowRight"), to(1, "ArrowDown"), to(4, "ArrowUp"), to(4, "ArrowRight"), to(0, "ArrowLeft")], [1, 3, 4, 4, 0]);
  assert.deepEqual([to(1, "ArrowDown", 3), to(4, "ArrowUp", 3)], [4, 1]);
  assert.equal(to(1, "Enter"), -1);
});

test("every term has two lines at most, and papers have arXiv ids", () => {
  assert.equal(CHAPTERS.flatMap(([, terms]) => Object.keys(terms)).length, Object.keys(TERMS).length);
  for (const [key, { name, text, papers = [] }] of Object.entries(TERMS)) {
    assert.ok(name && text.length <= 240, `${key}: ${text.length} characters`);
    for (const [author, id] of papers) assert.match(`${author}, ${id}`, /^[A-Z].* 20\d\d, \d{4}\.\d{5}$|^[A-Z].* 20\d\d, \d{4}\.\d{4}$/);
  }
  assert.deepEqual(["relevance", "legrad", "mine", "entropy"].map(termOf), ["relevance", "legrad", "method", "method"]);
});

test("methods stand in groups: for a class, and attention alone", () => {
  assert.deepEqual(methodGroups(INDEX).map(([, choices]) => choices.map(([name]) => name)), [["relevance", "legrad"], ["raw", "rollout", "value_weighted"]]);
});

test("a number on the colour of its value has a contrast of 4.5 at least", () => {
  const luminance = (colour) => [...colour].map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4)).reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  for (const colours of [sequential, diverging]) {
    for (let i = 0; i < 256; i++) {
      const light = luminance(colours.subarray(3 * i, 3 * i + 3));
      const contrast = isLight({ low: 0, high: 255, colours, percent: false }, i) ? (light + 0.05) / 0.05 : 1.05 / (light + 0.05);
      assert.ok(contrast >= 4.5, `${contrast} at ${i}`);
    }
  }
});
