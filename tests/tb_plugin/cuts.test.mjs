// Cuts of the live page: their history, what they did, and what a try says. Run by test_arithmetic.py.
import assert from "node:assert/strict";
import test from "node:test";

const folder = new URL("../../vit_attn/tb_plugin/static/", import.meta.url);
const load = (name) => import(new URL(name, folder));
const { DEFAULTS } = await load("data/state.js");
const { Maps } = await load("maps/view.js");
const { addCuts, barClasses, changeOf, CutHistories, CutHistory, cutName, isSameCut, logitText, signed, stepName, toggleCut, watchedClass } = await load("asking/cuts.js");
const { askedMethod, judgedLines, judgeProblem, judgingForwards, positions } = await load("asking/tries.js");

const METHODS = [{ name: "legrad", label: "LeGrad", reference: "", class_specific: true, has_query: false, rows: true }];
const INDEX = { asks: true, ofPictures: true, classes: ["tench", "tabby", "tiger"], grid: [2, 3], prefix: ["CLS"], layers: ["a", "b"], heads: [2, 2], pooled: [1, 0, 0, 0, 0, 0, 0], relevance: true, note: "", methods: METHODS, images: [{ label: null, right: null, top: [["tabby", 0.6]], size: [8, 12] }] };
const maps = () => new Maps({ run: "vit", step: 0, image: 0 }, INDEX, [null, null], null);
const patch = (token) => ({ kind: "patch", token });
const edge = (query, key, layer = null, head = null) => ({ kind: "edge", query, key, layer, head });
const head = (layer, number) => ({ kind: "head", layer, head: number });
const reply = (step, logits = [1, 2, 3]) => ({ step, before: { logits: [1, 5, 3], probabilities: [0.1, 0.8, 0.1] }, after: { logits, probabilities: [0.2, 0.2, 0.6] }, said: [], code: "" });

test("a second click on a cut takes it back, and another edge, layer or head is another cut", () => {
  const cuts = [patch(3), edge("pool", 3), edge(0, 3), edge(0, 3, 1), edge(0, 3, 1, 0), edge(0, 3, null, 0), head(1, 0)];
  let list = [];
  for (const cut of cuts) list = toggleCut(list, cut);
  assert.deepEqual(list, cuts);
  for (const cut of cuts) assert.deepEqual(toggleCut(cuts, { ...cut }), cuts.filter((each) => each !== cut));
  for (const [i, a] of cuts.entries()) for (const [j, b] of cuts.entries()) assert.equal(isSameCut(a, b), i === j);
  assert.deepEqual(addCuts([patch(3)], [patch(4), patch(3)]), [patch(3), patch(4)]);
});

test("undo and redo go through the lists, and a new cut drops those that were undone", () => {
  const history = new CutHistory();
  assert.deepEqual([history.canUndo, history.canRedo, history.step], [false, false, 0]);
  for (const token of [1, 2, 3]) history.push(toggleCut(history.cuts, patch(token)));
  history.go(history.at - 1);
  assert.deepEqual(history.cuts, [patch(1), patch(2)]);
  assert.deepEqual([history.canUndo, history.canRedo], [true, true]);
  history.go(history.at + 1);
  assert.deepEqual(history.cuts, [patch(1), patch(2), patch(3)]);
  history.go(0);
  assert.deepEqual([history.cuts, history.canUndo], [[], false]);
  history.go(-5);
  assert.equal(history.at, 0);
  history.push([]);
  assert.equal(history.entries.length, 4); // the same list is no entry
  history.push([patch(9)]);
  assert.deepEqual(history.entries.map(({ cuts }) => cuts), [[], [patch(9)]]);
  history.go(99);
  assert.equal(history.at, 1);
});

test("each network and picture has its own history, which knows whose it is", () => {
  const histories = new CutHistories();
  const first = histories.of({ run: "vit", image: 0 });
  first.push([patch(3)]);
  assert.equal(histories.of({ run: "vit", step: 4, image: 0 }), first);
  assert.deepEqual([first.run, first.image], ["vit", 0]);
  for (const other of [{ run: "vit", image: 3 }, { run: "deit", image: 0 }]) {
    assert.deepEqual(histories.of(other).cuts, []);
    assert.deepEqual([first.isOf(other), histories.of(other).isOf(other)], [false, true]);
  }
});

test("the list that stands is asked first, then those that were overtaken, and none twice", () => {
  const history = new CutHistory();
  assert.equal(history.open, undefined);
  for (const token of [1, 2, 3]) history.push([patch(token)]);
  const [, one, two, three] = history.entries;
  assert.equal(history.open, three);
  assert.equal(history.step, null);
  three.reply = reply(7);
  assert.deepEqual([history.step, history.open], [7, one]);
  one.problem = "refused";
  assert.equal(history.open, two);
  two.reply = reply(8);
  assert.equal(history.open, undefined);
});

test("a step that was chosen elsewhere is found in the history", () => {
  const history = new CutHistory();
  for (const [i, token] of [1, 2].entries()) {
    history.push([patch(token)]);
    history.entry.reply = reply(i + 3);
  }
  assert.deepEqual([0, 3, 4, 5].map((step) => history.find(step)), [0, 1, 2, -1]);
  history.push([]);
  assert.equal(history.find(0), 3); // where it stands, not the first of them
});

test("the watched class is the chosen one, or the one that the whole network predicts", () => {
  const { before } = reply(1);
  assert.equal(watchedClass(before, INDEX.classes, "tiger"), 2);
  assert.equal(watchedClass(before, INDEX.classes, ""), 1);
  assert.equal(watchedClass(before, INDEX.classes, "gone"), 1);
  const { logit, probability } = changeOf(reply(1), 1);
  assert.deepEqual(logit, { before: 5, after: 2, change: -3 });
  assert.deepEqual([probability.before, probability.after], [0.8, 0.2]);
});

test("bars show the watched class and the most probable of before and after", () => {
  const outcome = (probabilities) => ({ logits: probabilities, probabilities });
  const both = { before: outcome([0.5, 0.3, 0.1, 0.05, 0.03, 0.02]), after: outcome([0, 0.1, 0.05, 0.02, 0.8, 0.03]) };
  assert.deepEqual(barClasses(both, 5, 3), [0, 4, 5]);
  assert.deepEqual(barClasses(both, 0, 6), [0, 1, 2, 3, 4, 5]);
  assert.deepEqual(barClasses({ before: outcome([1]), after: outcome([1]) }, 0), [0]);
});

test("changes have a sign, and none is said as none", () => {
  assert.deepEqual([1.234, -1.236, 0.001, -0.001, NaN].map((value) => signed(value)), ["+1.23", "−1.24", "±0.00", "±0.00", "not a number"]);
  assert.deepEqual([-2.5, 3, Infinity].map(logitText), ["−2.50", "3.00", "not a number"]);
});

test("cuts and steps of the history are named from 1", () => {
  assert.equal(cutName(patch(5), INDEX), "patch row 2, column 2");
  assert.equal(cutName(patch(0), INDEX), "CLS as a key");
  assert.equal(cutName(edge("pool", 1), INDEX), "pooled row → row 1, column 1");
  assert.equal(cutName(edge(0, 6, 1, 0), INDEX), "CLS → row 2, column 3 (layer 2, head 1)");
  assert.equal(cutName(head(0, 1), INDEX), "layer 1, head 2");
  assert.equal(stepName([], [], INDEX), "nothing cut");
  assert.equal(stepName([], [patch(1)], INDEX), "cleared");
  assert.equal(stepName([patch(5), head(0, 1)], [patch(5)], INDEX), "+ layer 1, head 2");
  assert.equal(stepName([patch(5)], [patch(5), patch(1), patch(2)], INDEX), "− 2 cuts");
});

test("a try asks for the map that is shown, or says which can be tried", () => {
  const asked = (change) => askedMethod(maps(), { ...DEFAULTS, ...change });
  assert.deepEqual(asked({}), { method: "relevance" });
  assert.deepEqual(asked({ method: "legrad" }), { method: "legrad" });
  assert.deepEqual(asked({ method: "rollout" }), { method: "rollout" });
  assert.deepEqual(asked({ method: "rollout", head: "max", layer: 1 }), { method: "rollout_max" });
  assert.deepEqual(asked({ method: "raw" }), { method: "last_layer" });
  for (const change of [{ method: "rollout", layer: 0 }, { method: "raw", layer: 0 }, { method: "raw", head: 1 }, { direction: "to", query: 2 }]) assert.match(asked(change).problem, /^Choose/);
  assert.equal(judgeProblem(DEFAULTS), "");
  for (const change of [{ query: 0 }, { target: "tench" }]) assert.match(judgeProblem({ ...DEFAULTS, ...change }), /^Go back/);
  assert.deepEqual([1, 8].map(judgingForwards), [86, 184]);
});

test("the line of a try holds zero, all changes and the margin", () => {
  const effect = (logit) => ({ patches: [], logit, probability: 0 });
  const at = positions({ ranked: effect(-4), random: [effect(-1), effect(1)], mean: { logit: 0, probability: 0 }, margin: { logit: 2, probability: 1 } });
  assert.deepEqual(at, { zero: 3 + (94 * 4) / 6, ranked: 3, random: [50, 3 + (94 * 5) / 6], from: 3 + (94 * 2) / 6, to: 97 });
  const none = positions({ ranked: effect(0), random: [effect(0)], mean: { logit: 0, probability: 0 }, margin: { logit: 0, probability: 0 } });
  assert.equal(none.ranked, 50);
});

test("a judged map may have no measurable difference from a baseline", () => {
  const [line] = judgedLines({ relevance: { deletion: [0.1, 0.3, 0.05, 0.3, 0.1], insertion: [0.5, 0.49, 0.05, 0.4, 0.05] } });
  assert.equal(line.deletion.words, "better than random and centre first");
  assert.equal(line.insertion.words, "no measurable difference from random, better than centre first");
  assert.deepEqual([line.label, line.deletion.value], ["relevance", "0.100"]);
});
