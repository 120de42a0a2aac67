// Run by `node --test tests/tb_plugin/` and by test_arithmetic.py. Numbers that Python must agree with are in test_page.py.
import assert from "node:assert/strict";
import test from "node:test";
import { deflateSync } from "node:zlib";

const folder = new URL("../../vit_attn/tb_plugin/static/", import.meta.url);
const { columnOf, decodeLayers, fuse, mixHead, mixRows, pickColumn, rollColumn, rollMatrix, rollRow, rowOf, sum } = await import(new URL("maps/arithmetic.js", folder));
const { roundingOf } = await import(new URL("maps/queries_keys.js", folder));
const { findSinks, measure, sinkThreshold } = await import(new URL("maps/measures.js", folder));
const { Maps, placeName, rankOf, tokenName } = await import(new URL("maps/view.js", folder));
const { difference, LEAST, compare, obstacleTo } = await import(new URL("maps/compare.js", folder));
const { sums } = await import(new URL("parts/notes.js", folder));
const { comparedAs, faithfulnessNotes, relation } = await import(new URL("maps/faithfulness.js", folder));
const { methodChoices } = await import(new URL("maps/methods.js", folder));
const { regionsOf } = await import(new URL("maps/regions.js", folder));
const { Store, DEFAULTS } = await import(new URL("data/state.js", folder));
const { cssColour, format, scaleAround, scaleTo } = await import(new URL("maps/colour.js", folder));

/** A layer whose rows are random codes with peaks such that rows sum to 1. */
function layer(heads, tokens, seed = 1) {
  let state = seed;
  const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
  const codes = Uint8Array.from({ length: heads * tokens * tokens }, () => Math.floor(256 * random()));
  const peaks = new Float32Array(heads * tokens);
  for (let row = 0; row < peaks.length; row++) {
    codes[row * tokens] = 255;
    const shares = codes.subarray(row * tokens, (row + 1) * tokens).reduce((total, code) => total + (code / 255) ** 2, 0);
    peaks[row] = 1 / shares;
  }
  return { heads, tokens, peaks, codes };
}

/** The bytes that Python would write for a layer. */
function encode({ heads, tokens, peaks, codes }) {
  const bytes = new Uint8Array(16 + peaks.byteLength + codes.length);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode("VATN"));
  view.setUint16(4, 1, true);
  view.setUint16(6, heads, true);
  view.setUint32(8, tokens, true);
  bytes.set(new Uint8Array(peaks.buffer), 16);
  bytes.set(codes, 16 + peaks.byteLength);
  return bytes;
}

const near = (a, b, tolerance = 1e-5) => assert.ok(Math.abs(a - b) <= tolerance, `${a} is not ${b}`);

/** The same layer as version 2 writes it. */
function deflate(bytes, version = 2) {
  const view = new DataView(bytes.buffer);
  const start = 16 + 4 * view.getUint16(6, true) * view.getUint32(8, true);
  const codes = deflateSync(bytes.subarray(start));
  const result = Buffer.concat([bytes.subarray(0, 16), new Uint8Array(Uint32Array.of(codes.length).buffer), bytes.subarray(16, start), codes]);
  result[4] = version;
  return new Uint8Array(result);
}

test("layers of one reply are read one after another, whatever their heads and their version", async () => {
  const layers = [layer(1, 5), layer(3, 5, 2), layer(24, 5, 3)];
  const buffer = Buffer.concat([encode(layers[0]), deflate(encode(layers[1])), deflate(encode(layers[2]))]);
  const read = await decodeLayers(new Uint8Array(buffer).buffer);
  assert.deepEqual(read.map(({ heads }) => heads), [1, 3, 24]);
  read.forEach((each, i) => assert.deepEqual([...rowOf(each, 0, 2)], [...rowOf(layers[i], 0, 2)]));
});

test("corrupt bytes and other versions are refused", async () => {
  const bytes = encode(layer(2, 4));
  for (const each of [bytes, deflate(bytes)]) {
    await assert.rejects(decodeLayers(each.slice(0, -1).buffer), /corrupt maps/);
    await assert.rejects(decodeLayers(each.slice(0, 9).buffer), /cut off/);
    await assert.rejects(decodeLayers(each.slice(0, 18).buffer), /corrupt maps/);
  }
  await assert.rejects(decodeLayers(deflate(bytes, 3).buffer), /format version 3; this page reads 2/);
  bytes[0] = 0;
  await assert.rejects(decodeLayers(bytes.slice().buffer), /they begin with/);
});

test("a stream of more or fewer codes than the header says, or that is none, is refused", async () => {
  for (const count of [31, 33, 1e6]) {
    const codes = deflateSync(new Uint8Array(count));
    const bytes = deflate(encode(layer(2, 4))).slice(0, 20 + 32);
    new DataView(bytes.buffer).setUint32(16, codes.length, true);
    await assert.rejects(decodeLayers(new Uint8Array(Buffer.concat([bytes, codes])).buffer), /corrupt maps: .* of 32 codes|corrupt maps: 31 codes instead of 32/);
  }
  const bytes = deflate(encode(layer(2, 4)));
  bytes[20 + 32] ^= 255;
  await assert.rejects(decodeLayers(bytes.buffer), /corrupt maps: .* after 0 of 32 codes/);
});

test("a corrupt layer after a corrupt stream leaves no error behind that nobody handles", async () => {
  const unhandled = [];
  const note = (error) => unhandled.push(error);
  process.on("unhandledRejection", note);
  const stream = deflate(encode(layer(2, 4)));
  stream[20 + 32] ^= 255;
  await assert.rejects(decodeLayers(new Uint8Array([...stream, ...new Uint8Array(20)]).buffer), /they begin with/);
  await new Promise((resolve) => setTimeout(resolve, 50));
  process.off("unhandledRejection", note);
  assert.deepEqual(unhandled, []);
});

test("a logged weight is as near to the exact one as the levels that its head has", () => {
  const every = { heads: 1, tokens: 16, peaks: new Float32Array(16).fill(0.5), codes: Uint8Array.from({ length: 256 }, (_, i) => i) };
  assert.ok(Math.abs(roundingOf(every, 0, 6, 4) - 0.5 * ((101.5 / 255) ** 2 - (100 / 255) ** 2)) < 1e-7);
  const few = { ...every, codes: every.codes.map((code) => Math.round(Math.round((code * 12) / 255) * (255 / 12))) };
  const exact = 0.5 * (100 / 255) ** 2;
  const logged = rowOf(few, 0, 6)[4];
  assert.ok(Math.abs(logged - exact) > 3 * roundingOf(every, 0, 6, 4));
  assert.ok(Math.abs(logged - exact) < roundingOf(few, 0, 6, 4));
});

test("rows, columns and mixtures agree with the fused matrix", () => {
  const maps = layer(3, 6);
  const matrix = fuse(maps, 1);
  for (let key = 0; key < 6; key++) {
    near(rowOf(maps, 1, 4)[key], matrix[4 * 6 + key]);
    near(columnOf(maps, 1, 2)[key], matrix[key * 6 + 2]);
    near(pickColumn(matrix, 2)[key], matrix[key * 6 + 2]);
  }
  const weights = Float32Array.from([0, 0.5, 0, 0.5, 0, 0]);
  mixRows(matrix, weights).forEach((value, i) => near(value, mixHead(maps, 1, weights)[i]));
});

test("the mean of heads keeps rows that sum to 1; maximum and minimum bound it", () => {
  const maps = layer(3, 6);
  const [mean, max, min] = ["mean", "max", "min"].map((fusion) => fuse(maps, fusion));
  for (let row = 0; row < 6; row++) near(sum(mean.subarray(row * 6, row * 6 + 6)), 1);
  mean.forEach((value, i) => assert.ok(min[i] <= value + 1e-6 && value <= max[i] + 1e-6));
});

test("rollout of a row, of a column and of all tokens are the same, and rows sum to 1", () => {
  for (const fusion of ["mean", "max", "min"]) {
    const matrices = [layer(2, 6, 4), layer(2, 6, 5), layer(2, 6, 6)].map((each) => fuse(each, fusion));
    const whole = rollMatrix(matrices);
    for (let token = 0; token < 6; token++) {
      const one = Float32Array.from({ length: 6 }, (_, i) => Number(i === token));
      const row = rollRow(matrices, one);
      near(sum(row), 1);
      row.forEach((value, key) => near(value, whole[token * 6 + key]));
      rollColumn(matrices, token).forEach((value, query) => near(value, whole[query * 6 + token]));
    }
  }
});

test("identity maps roll out to the identity", () => {
  const identity = Float32Array.from({ length: 16 }, (_, i) => Number(i % 5 === 0));
  rollMatrix([identity, identity]).forEach((value, i) => near(value, identity[i]));
});

test("a head that looks everywhere alike is uniform, one on one token concentrated, distances are in pixels", () => {
  const grid = { rows: 2, cols: 2, prefix: 1, height: 16, width: 32 };
  const uniform = { heads: 1, tokens: 5, peaks: new Float32Array(5).fill(0.2), codes: new Uint8Array(25).fill(255) };
  const all = measure(uniform, 0, grid);
  near(all.entropy, Math.log(5));
  assert.ok(all.uniform && !all.concentrated);
  near(all.distance, (0 + 16 + 8 + Math.hypot(16, 8)) / 4, 1e-4);
  const codes = Uint8Array.from({ length: 25 }, (_, i) => (i % 5 === 1 ? 255 : 0));
  const one = measure({ heads: 1, tokens: 5, peaks: new Float32Array(5).fill(1), codes }, 0, grid);
  assert.deepEqual([one.entropy, one.sink, one.sinkToken, one.concentrated, one.uniform], [0, 1, 1, true, false]);
});

test("a row of which nothing goes to patches counts for no distance", () => {
  // CLS and 2 × 2 patches of 16 pixels: two patches attend to CLS alone, two to the patch diagonally across
  const weights = [[1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 0, 0, 0]];
  const codes = Uint8Array.from(weights.flat(), (weight) => 255 * weight);
  const grid = { rows: 2, cols: 2, prefix: 1, height: 32, width: 32 };
  near(measure({ heads: 1, tokens: 5, peaks: new Float32Array(5).fill(1), codes }, 0, grid).distance, Math.hypot(16, 16), 1e-3);
});

test("what a sink gets at least is said as it is measured", () => {
  assert.deepEqual([5, 19, 20, 197].map(sinkThreshold), ["half of the attention", "half of the attention", "ten times uniform attention", "ten times uniform attention"]);
});

test("sinks are known patches at ten times the uniform share, never prefix tokens", () => {
  const tokens = 20;
  const matrix = new Float32Array(tokens * tokens);
  for (let row = 0; row < tokens; row++) matrix[row * tokens] = matrix[row * tokens + 7] = 0.5;
  assert.deepEqual(findSinks([matrix], 1, new Set([0, 7, 9])), [7]);
  assert.deepEqual(findSinks([matrix], 1, new Set([0, 9])), []); // as much for what the image shows there
});

const index = { grid: [2, 2], prefix: ["CLS"], layers: ["a", "b"], heads: [2, 2], pooled: [1, 0, 0, 0, 0], relevance: false, note: "", images: [{ label: "x", top: [["x", 1]], right: true, size: [8, 8], answer: null, verdict: null }] };
const maps = () => new Maps({ run: "r", step: 0, image: 0 }, index, [layer(2, 5, 8), layer(2, 5, 9)], null);

test("leaving out hides what it says and changes no value", () => {
  const state = { ...DEFAULTS, method: "raw", query: 2 };
  const [all, left] = [maps().show(state), maps().show({ ...state, hide: true })];
  assert.deepEqual([...left.values], [...all.values]);
  assert.deepEqual([...left.hidden], [0]);
  near(left.hiddenMass, all.values[0]);
});

/** A layer of two heads: all queries of the first look at patch 1, those of the second everywhere. */
function concentrated() {
  const codes = Uint8Array.from({ length: 50 }, (_, i) => (i < 25 ? (i % 5 === 1 ? 255 : 0) : 255));
  return { heads: 2, tokens: 5, codes, peaks: Float32Array.from({ length: 10 }, (_, i) => (i < 5 ? 1 : 0.2)) };
}

test("what holds most of the attention is left out only if it does in other images too", () => {
  const state = { ...DEFAULTS, method: "raw", layer: 0, hide: true };
  const hidden = (sinks, change = {}) => [...new Maps({ run: "r", step: 0, image: 0 }, { ...index, sinks }, [concentrated(), concentrated()], null).show({ ...state, ...change }).hidden];
  const sinks = (heads, mean) => ({ images: 8, layers: [{ heads, mean }, { heads: [[], []], mean: [] }] });
  for (const unknown of [undefined, { images: 2, layers: null }, sinks([[], []], [])]) assert.deepEqual(hidden(unknown), [0]);
  assert.deepEqual(hidden(sinks([[1], []], [1])), [0, 1]);
  assert.deepEqual(hidden(sinks([[1], []], []), { head: 0 }), [0, 1]);
  assert.deepEqual(hidden(sinks([[], [1]], []), { head: 0 }), [0]); // another head's sink
  assert.deepEqual(hidden(sinks([[1], []], []), { head: "max" }), [0, 1]);
  assert.deepEqual(hidden(sinks([[1], []], [1]), { method: "rollout", layer: 1 }), [0, 1]);
});

test("a side of a comparison is said to have its own sinks, and to leave out those of the other too", () => {
  const of = (sinks) => new Maps({ run: "r", step: 0, image: 0 }, { ...index, sinks }, [concentrated(), concentrated()], null);
  const a = of({ images: 8, layers: [{ heads: [[1], []], mean: [1] }, { heads: [[], []], mean: [] }] });
  const state = { ...DEFAULTS, method: "raw", layer: 0 };
  const told = (here, change) => sums(here, here.show({ ...state, ...change }, a.sinks(state)), { ...state, ...change }).join(" ");
  assert.match(told(a, {}), /Sinks, which get half of the attention or more in nine of ten of 8 images: row 1, column 1\./);
  assert.match(told(a, { hide: true }), /Left out: CLS; row 1, column 1;/);
  for (const other of [undefined, { images: 2, layers: null }, { images: 8, layers: [{ heads: [[], []], mean: [] }, { heads: [[], []], mean: [] }] }]) {
    assert.doesNotMatch(told(of(other), {}), /Sinks|undefined/);
    assert.match(told(of(other), { hide: true }), /Left out: CLS; row 1, column 1 \(a sink of A\);/);
  }
});

test("without relevance raw attention of the last layer is shown, and what needs loading is known", () => {
  const without = maps();
  assert.equal(without.possible(DEFAULTS).method, "raw");
  assert.equal(without.layerOf(without.possible(DEFAULTS)), 1);
  const large = new Maps({ run: "r", step: 0, image: 0 }, { ...index, relevance: true }, [null, null], layer(1, 5));
  assert.ok(large.has(DEFAULTS) && !large.has({ ...DEFAULTS, method: "raw" }));
  assert.equal(large.obstacle(DEFAULTS), "");
});

const OWN = { name: "mine", label: "Mine", reference: "Doe 2020", class_specific: true, has_query: false, rows: true };

test("a method that the page does not know is shown from its logged rows, for the pooled row only", () => {
  const images = [{ ...index.images[0], rows: { mine: [0, 1, null, 3, 4] } }];
  const computed = { ...OWN, name: "rollout", label: "rollout, mean", rows: false };
  const logged = new Maps({ run: "r", step: 0, image: 0 }, { ...index, images, methods: [computed, OWN] }, [layer(2, 5), layer(2, 5)], null);
  const state = { ...DEFAULTS, method: "mine" };
  assert.deepEqual(methodChoices(logged.index).map(([name]) => name), ["relevance", "raw", "rollout", "mine"]);
  assert.equal(logged.possible(state).method, "mine");
  assert.ok(new Maps(logged.place, logged.index, [null, null], null).has(state)); // no layer is needed
  assert.deepEqual([...logged.values(state)], [0, 1, NaN, 3, 4]);
  assert.equal(logged.obstacle(state), "");
  assert.match(logged.obstacle({ ...state, query: 2 }), /Mine was logged for the pooled row only: the method has no query\. /);
  assert.equal(logged.matrix(state), null);
  assert.equal(comparedAs(logged, state), "Mine");
  assert.match(faithfulnessNotes(logged, state)[0], /^Not compared with baselines: deletion and insertion of Mine were not logged/);
  assert.equal(maps().possible(state).method, "raw");
  assert.deepEqual(methodChoices(index).map(([name]) => name), ["relevance", "raw", "rollout"]);
  const other = new Maps({ run: "r", step: 0, image: 0 }, { ...logged.index, images: [{ ...images[0], top: [["y", 1]] }] }, [layer(2, 5), layer(2, 5)], null);
  assert.equal(obstacleTo(logged, other, state), "Mine is of other classes: x in A, y in B");
});

test("the answer region comes first, regions around it are left out, those of earlier versions are all shown", () => {
  const about = { ground_truth: { all: [3, 4, 9], beak: [3, 4], tail: [9] }, answer_region: "beak" };
  assert.deepEqual(regionsOf(about), [{ name: "beak", patches: [3, 4], isAnswer: true }, { name: "tail", patches: [9], isAnswer: false }]);
  const earlier = regionsOf({ answer: { bought: [3], buyer: [20] } });
  assert.deepEqual(earlier, [{ name: "bought", patches: [3], isAnswer: false }, { name: "buyer", patches: [20], isAnswer: false }]);
  assert.deepEqual(regionsOf({ ground_truth: null, answer_region: null }), []);
  const empty = { ground_truth: { object: [], left_wing: [5] }, answer_region: "object" };
  assert.deepEqual(regionsOf(empty), [{ name: "left wing", patches: [5], isAnswer: false }]);
});

test("relevance of a pool by attention is its own, no mix of tokens", () => {
  const images = [{ ...index.images[0], pooled_relevance: [0, 1, 2, 3, 4] }];
  const pool = new Maps({ run: "r", step: 0, image: 0 }, { ...index, relevance: true, images }, [layer(2, 5), layer(2, 5)], layer(1, 5));
  assert.deepEqual([...pool.values(DEFAULTS)], [0, 1, 2, 3, 4]);
  assert.notDeepEqual([...pool.values({ ...DEFAULTS, query: 2 })], [0, 1, 2, 3, 4]);
});

test("a comparison stands under its own method and no other", () => {
  const five = (value) => ({ deletion: [value, 0.4, 0.05, 0.4, 0.05], insertion: [0.4, 0.4, 0.05, 0.4, 0.05] });
  const methods = { relevance: five(0.1), "last layer": five(0.2), "rollout, max": five(0.3) };
  const judged = { ...index, relevance: true, judged: { orders: 8, images: 4, methods } };
  const here = new Maps({ run: "r", step: 0, image: 0 }, judged, [layer(2, 5), layer(2, 5)], layer(1, 5));
  const notes = (change) => faithfulnessNotes(here, { ...DEFAULTS, ...change }).join(" ");
  assert.match(notes({}), /Comparison with baselines of relevance, over 4 images with 8 random orders each \(.*\): deletion 0\.100 .*: better than both; insertion 0\.400/);
  assert.match(notes({ method: "raw" }), /Comparison with baselines of the last layer, mean of heads.*deletion 0\.200/);
  assert.match(notes({ method: "rollout", head: "max" }), /Comparison with baselines of rollout, maximum of heads.*deletion 0\.300/);
  const others = [{ method: "rollout" }, { method: "raw", layer: 0 }, { method: "raw", head: 1 }, { method: "raw", head: "max" }, { method: "rollout", layer: 0 }, { query: 2 }];
  for (const other of others) assert.match(notes(other), /^Not compared with baselines: .*[^0-9]$/);
  assert.deepEqual(others.map((change) => comparedAs(here, { ...DEFAULTS, ...change })), ["rollout, mean", null, null, null, null, null]);
});

test("of a pool by attention the last layer's mix is judged, not the pool's own row", () => {
  const five = (value) => ({ deletion: [value, 0.5, 0.1, 0.5, 0.1], insertion: [value, 0.5, 0.1, 0.5, 0.1] });
  const methods = { "last layer": five(0.2), "last layer, pooled": five(0.3) };
  const pool = new Maps({ run: "r", step: 0, image: 0 }, { ...index, judged: { orders: 8, images: 2, methods } }, [layer(2, 5), layer(2, 5)], null);
  const said = faithfulnessNotes(pool, { ...DEFAULTS, method: "raw" }).join(" ");
  assert.match(said, /Comparison with baselines of the last layer, mean of heads, weighed as the pool by attention does.*deletion 0\.300/);
  assert.doesNotMatch(said, /0\.200/);
});

test("a difference within its margin is none, and what is better than one baseline alone has shown nothing", () => {
  assert.deepEqual([0.3, 0.34, 0.46, null].map((value) => relation(value, 0.4, 0.05, false)), ["better", "better", "worse", "unknown"]);
  assert.deepEqual([0.35, 0.45].map((value) => relation(value, 0.4, 0.0501, true)), ["same", "same"]);
  const note = (deletion, insertion) => faithfulnessNotes(new Maps({ run: "r", step: 0, image: 0 }, { ...index, relevance: true, judged: { orders: 8, images: 4, methods: { relevance: { deletion, insertion } } } }, [null, null], layer(1, 5)), DEFAULTS)[0];
  assert.match(note([0.145, 0.154, 0.02, 0.15, 0.02], [0.14, 0.154, 0.02, 0.2, 0.02]), /no measurable difference from either; insertion .*: no measurable difference from random, worse than centre first\. A map that is not better than both has shown nothing\.$/);
  assert.match(note([0.1, 0.4, 0.02, 0.4, 0.02], [0.9, 0.4, 0.02, 0.4, 0.02]), /: better than both\. So it ranks patches as this network uses them, whether the network is right or not\.$/);
  assert.match(note([null, 0.4, 0.02, 0.4, 0.02], [0.9, null, null, 0.4, 0.02]), /deletion not a number .*not comparable, since the network gave NaN/);
});

test("comparisons of earlier versions are relevance's, of one random order, and no claim", () => {
  const images = [{ ...index.images[0], verdict: { deletion: 0.2, insertion: 0.7, random_deletion: 0.4, random_insertion: 0.5 } }];
  const old = new Maps({ run: "r", step: 0, image: 0 }, { ...index, relevance: true, images }, [layer(2, 5), layer(2, 5)], layer(1, 5));
  const [said] = faithfulnessNotes(old, DEFAULTS);
  assert.match(said, /earlier version, for relevance and one random order: deletion 0\.200, random 0\.400; insertion 0\.700, random 0\.500/);
  assert.doesNotMatch(said, /better/);
  assert.match(faithfulnessNotes(old, { ...DEFAULTS, method: "rollout" })[0], /^Not compared with baselines/);
});

test("equal values share their ranks, and what is no number has none", () => {
  const values = Float32Array.from([0.2, 0.5, 0.2, 0.1]);
  assert.deepEqual([0.5, values[0], NaN].map((value) => rankOf(values, value)), ["rank 1 of 4", "rank 2–3 (equal) of 4", "no rank"]);
  assert.equal(rankOf(values, 0.5, " patches"), "rank 1 of 4 patches");
});

test("what cannot be shown says why", () => {
  const partial = maps();
  partial.layers[0] = null;
  assert.match(partial.obstacle({ ...DEFAULTS, method: "rollout" }), /needs all layers/);
  assert.match(maps().obstacle({ ...DEFAULTS, method: "relevance" }), /No relevance/);
  assert.match(maps().obstacle({ ...DEFAULTS, query: 99 }), /has 5 tokens/);
  assert.match(new Maps({ run: "r", step: 0, image: 0 }, { ...index, relevance: true }, [null, null], null).obstacle(DEFAULTS), /relevance is not loaded/);
});

test("a layer or a head of another network falls back to one that exists", () => {
  assert.equal(maps().layerOf({ ...DEFAULTS, layer: 11 }), 1);
  assert.equal(maps().headOf({ ...DEFAULTS, method: "raw", head: 23 }), "mean");
});

test("a difference is B minus A, and needs the same tokens", () => {
  const shown = (...values) => ({ values: Float32Array.from(values), hidden: new Set(), total: 0, hiddenMass: 0, sinks: [], max: 0 });
  assert.deepEqual([...difference(shown(1, 2), shown(2, 0)).values], [1, -2]);
  assert.equal(difference(shown(1, 2), shown(2, 0)).max, 2);
  assert.equal(difference(shown(1), shown(2, 0)), null);
});

/** Maps that differ from `maps()` in what is named. */
function side({ place = {}, index: of = {}, about = {}, layers = 2 }) {
  const all = { ...index, ...of, layers: Array(layers).fill("x"), heads: Array(layers).fill(2), images: Array(4).fill({ ...index.images[0], picture: "1f", ...about }) };
  return new Maps({ run: "r", step: 0, image: 0, ...place }, all, Array.from({ length: layers }, (_, i) => layer(2, 5, 8 + i)), null);
}

test("two sides are subtracted only where they are of one image, of the same tokens, classes, layer and query", () => {
  const raw = { ...DEFAULTS, method: "raw", query: 2 };
  const [relevance, pooled] = [{ ...raw, method: "relevance" }, { ...raw, query: "pool" }];
  const cases = [
    [{}, raw, ""],
    [{ place: { run: "other", step: 7, image: 3 } }, raw, ""], // the same pixels, wherever they stand
    [{ about: { picture: "2e" } }, raw, /different images/],
    [{ place: { run: "other" }, about: { picture: undefined } }, raw, /same image was not logged/],
    [{ about: { picture: undefined } }, raw, ""], // an older log: one run logs the same images
    [{ index: { grid: [1, 4] } }, raw, /other tokens: CLS, 2 × 2 patches in A, CLS, 1 × 4 patches in B/],
    [{ index: { prefix: ["R1"] } }, raw, /other tokens: CLS, .* R1/],
    [{ about: { label: "cat" } }, raw, /other classes: the image is x in A, cat in B/],
    [{ about: { top: [["cat", 1]] } }, raw, ""], // attention does not know the class
    [{ about: { top: [["cat", 1]] } }, relevance, /relevance is of other classes: x in A, cat in B/],
    [{ index: { pooled: [0, 0.25, 0.25, 0.25, 0.25] } }, pooled, /what the network pools is not the same/],
    [{ index: { pooled: [0, 0.25, 0.25, 0.25, 0.25] } }, raw, ""],
    [{ index: { pooled: [0, 0.25, 0.25, 0.25, 0.25] } }, { ...relevance, query: "pool" }, /what the network pools is not the same/],
    [{ about: { pooled_relevance: [3, 1, 1, 1, 1] } }, { ...relevance, query: "pool" }, /what the network pools/],
    [{}, { ...relevance, query: "pool" }, ""],
    [{ about: { pooled: [1, 0, 0, 0, 0] } }, pooled, /what the network pools/],
    [{ layers: 3 }, raw, ""], // the last of each
    [{ layers: 3 }, { ...raw, layer: 2 }, /layer 2 is shown of A, layer 3 of B/],
    [{ index: {}, layers: 2 }, { ...raw, head: 1 }, ""],
  ];
  for (const [b, state, wanted] of cases) {
    const said = obstacleTo(side({}), side(b), state);
    if (wanted === "") assert.equal(said, "");
    else assert.match(said, wanted);
  }
  const fewer = side({});
  fewer.index.heads = [1, 1];
  assert.match(obstacleTo(side({}), fewer, { ...raw, head: 1 }), /head 2 is shown of A, the mean of heads of B/);
});

test("what is no difference is said so, and is not drawn as one", () => {
  const state = { ...DEFAULTS, method: "raw", query: 2 };
  const [a, b] = [side({}), side({})];
  const shown = a.show(state);
  const none = compare(a, b, shown, shown, state);
  assert.equal(none.message, "no difference");
  near(none.scale.high, LEAST * shown.max);
  const little = { ...shown, values: shown.values.map((value, i) => value + (i === 3 ? 0.004 * shown.max : 0)) };
  assert.match(compare(a, b, shown, little, state).message, /no difference: less than .* 8 bits cannot tell/);
  const much = { ...shown, values: shown.values.map((value, i) => value + (i === 3 ? 0.5 * shown.max : 0)) };
  const change = compare(a, b, shown, much, state);
  assert.equal(change.message, "red: more in B");
  near(change.scale.high, 0.5 * shown.max);
  const other = compare(a, side({ about: { picture: "2e" } }), shown, much, state);
  assert.deepEqual([other.change, other.scale, other.message], [null, null, "not drawn: they are different images"]);
});

test("tokens are named by kind and place", () => {
  assert.deepEqual([0, 1, 4, "pool"].map((token) => tokenName(index, token)), ["CLS", "row 1, column 1", "row 2, column 2", "pooled row"]);
});

test("an image has the number that it was logged with, in a file with some of them too", () => {
  assert.equal(placeName(side({ place: { image: 2, step: 1200 } })), "r, step 1,200, image 3");
  assert.equal(placeName(side({ place: { image: 0 }, about: { number: 7 } })), "r, step 0, image 7");
});

test("a state is kept, a corrupt one is not", () => {
  const kept = new Map();
  const storage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value) };
  new Store("k", storage).set({ layer: 3, head: 1, query: 7 });
  assert.equal(new Store("k", storage).state.head, 1);
  kept.set("k", JSON.stringify({ layer: "no", query: -4, method: 3, step: 5 }));
  assert.deepEqual(new Store("k", storage).state, { ...DEFAULTS, step: 5 });
  kept.set("k", "{");
  assert.deepEqual(new Store("k", storage).state, DEFAULTS);
});

test("numbers are short, colours span the scale, and what is no number has none", () => {
  assert.deepEqual([0.1234, 0.01234, 0.001234, 1, 0].map((value) => format(value, true).replace("\u202f", "")), ["12.3%", "1.23%", "0.123%", "100%", "0%"]);
  assert.equal(format(NaN, true), "not a number");
  assert.deepEqual([0, 2, NaN].map((value) => cssColour(scaleTo(2, true), value)), ["rgb(68 1 84)", "rgb(253 231 37)", "transparent"]);
  assert.equal(scaleAround(0.5, true).low, -0.5);
  assert.deepEqual([scaleAround(0, true, 0.02).high, scaleAround(0.5, true, 0.02).high], [0.02, 0.5]);
  assert.ok(scaleAround(0, true).high < 1e-9);
});
