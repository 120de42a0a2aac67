// Links, files of numbers, queries and keys, hues, interpolation and curves. Run by `node --test` and by test_arithmetic.py.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";

const folder = new URL("../../vit_attn/tb_plugin/static/", import.meta.url);
const load = (name) => import(new URL(name, folder));
const { decodeLink, encodeLink, followLink, missingOfLink, replaceLink } = await load("data/link.js");
const { DEFAULTS } = await load("data/state.js");
const { crc32, csvText, npyFloats, npyText, npzBytes } = await load("saving/numbers.js");
const { byInfluence, compareWeights, decodeQueriesKeys, explainScore, scoresOf, softmax } = await load("maps/queries_keys.js");
const { HUES, blendOf, colouredHeads, headWithMost, patchesWon } = await load("maps/hues.js");
const { bilinear } = await load("maps/smooth.js");
const { knownMean, linePath, niceTicks } = await load("drawing/axes.js");
const { nextImage, predictionOf, shownImages, wrongCount } = await load("maps/predictions.js");
const { targetChoices, targetRow, targetWords } = await load("maps/methods.js");
const { Maps } = await load("maps/view.js");
const { aboutView, columnsOfView, fileName } = await load("saving/record.js");
const { bytesNeeded, layersNeeded } = await load("maps/values.js");
const { EmbeddedSource } = await load("data/source.js");

const near = (a, b, tolerance = 1e-6) => assert.ok(Math.abs(a - b) <= tolerance, `${a} is not ${b}`);
const VIEW = { ...DEFAULTS, run: "a b/ü&c=1,2#%", step: 450, image: 2, method: "legrad", target: "owl & \"co\"", layer: 0, head: 3, query: 17, queryGrid: "1 8 8", key: 5, direction: "to", hide: true, colours: [0, 4], view: "channels", smooth: true, pin: { run: "x,y=&z", step: 0, image: 1 } };

/** A network of two layers with two heads each on two by three patches and one CLS token. */
function index(more = {}) {
  const image = { label: "cat", top: [["dog", 0.6], ["cat", 0.3]], right: false, size: [16, 24] };
  const methods = [{ name: "legrad", label: "LeGrad", reference: "", class_specific: true, has_query: false, rows: true }, { name: "vw", label: "value-weighted", reference: "", class_specific: false, has_query: true, rows: true }];
  return { grid: [2, 3], prefix: ["CLS"], layers: ["1", "2"], heads: [2, 2], pooled: [1, 0, 0, 0, 0, 0, 0], relevance: true, note: "", methods, images: [{ ...image, ...more }, { ...image, right: true, top: [["cat", 0.9]], number: 7 }] };
}

const maps = (more, image = 0) => new Maps({ run: "r", step: 4, image }, index(more), [null, null], null);

test("a link gives back the view that it was made of, whatever is in the names", () => {
  for (const before of ["", "p.vit_attn."]) {
    const { state, bad } = decodeLink(encodeLink(VIEW, before), before);
    assert.deepEqual({ ...DEFAULTS, ...state }, VIEW);
    assert.deepEqual(bad, []);
  }
});

test("a link counts layers, heads and images from 1, and leaves out what is the default or the reader's own", () => {
  const text = encodeLink({ ...DEFAULTS, run: "r", step: 3, image: 1, layer: 1, head: 0, theme: "dark", opacity: 0.3 });
  assert.equal(text, "run=r&step=3&image=2&layer=2&head=1");
  assert.deepEqual(followLink({ ...DEFAULTS, theme: "dark", method: "raw", follow: true }, decodeLink(text).state), { ...DEFAULTS, theme: "dark", run: "r", step: 3, image: 1, layer: 1, head: 0 });
});

test("hostile and stale parts of a link are left out and named, and the rest is kept", () => {
  const hostile = ["__proto__=1", "constructor=1", "step=-1", "step=1e9", "step=99999999999999999999", "image=0", "image=x", "head=0", "head=middle", "query=-3", "layer=1.5", "method=", "direction=up", "hide=yes",
    "colours=1,1", "colours=1,2,3,4,5,6", "pin=1,0,r", "pin=r", "run=%E0%A4%A", "view=<b>", "theme=dark", "key=%00"];
  for (const part of hostile) {
    const { state, bad } = decodeLink(`run=kept&${part}`);
    assert.deepEqual([state.run, bad], ["kept", [part]], part);
    assert.deepEqual(Object.keys(state), ["run"]);
  }
  assert.equal({}.polluted, undefined);
  assert.deepEqual(decodeLink("vit_attn&p.other.run=x", "p.vit_attn."), { state: {}, bad: [] });
  assert.match(decodeLink(`run=${"x".repeat(9000)}`).bad.at(-1), /8,000/);
});

test("what others keep in TensorBoard's address stays there", () => {
  const state = { ...DEFAULTS, run: "r", step: 1 };
  assert.equal(replaceLink("#vit_attn&p.other.x=1&p.vit_attn.run=old&_smoothing=0.6", state, "p.vit_attn."), "#vit_attn&p.other.x=1&_smoothing=0.6&p.vit_attn.run=r&p.vit_attn.step=1&p.vit_attn.image=1");
  assert.equal(replaceLink("#run=old", state, ""), "#run=r&step=1&image=1");
});

test("what a link asks for and is not here is said in sentences", () => {
  const wanted = { run: "gone", step: 9, image: 5, layer: 7, head: 4, target: "owl", pin: { run: "gone", step: 1, image: 0 } };
  const said = missingOfLink(wanted, maps({ targets: ["dog", "cat"] }), maps());
  assert.match(said.join(" "), /run gone, which is not in this log: r is shown.*image 6, and there are 2.*layer 8, and there are 2.*head 5.*class owl.*comparison with gone/s);
  assert.deepEqual(missingOfLink({ run: "r", step: 9 }, maps(), null), ["The link asks for step 9, which was not logged: step 4 is shown."]);
  assert.deepEqual(missingOfLink({ run: "r", step: 4, image: 1, layer: 1, head: 1 }, maps({}, 1), null), []);
});

test("CSV says where its numbers are from, and quotes what would break it", () => {
  const text = csvText([["run", "a\nb"], ["step", "3"]], [{ name: "name", values: ['say "x", y', "#1"] }, { name: "value", values: Float32Array.of(0.1, NaN) }, { name: "row", values: [null, 2] }]);
  assert.equal(text, '# run: a b\n# step: 3\nname,value,row\n"say ""x"", y",0.1,\n"#1",nan,2\n');
});

test("npy has NumPy's header: aligned to 64 bytes, its shape, little-endian float32", () => {
  const bytes = npyFloats([2, 3], Float32Array.of(0, 1, 2, 3, 4, 0.5));
  const length = 10 + bytes[8] + 256 * bytes[9];
  assert.equal(length % 64, 0);
  assert.equal(new TextDecoder().decode(bytes.slice(10, length)).trimEnd(), "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }");
  assert.equal(new DataView(bytes.buffer).getFloat32(length + 20, true), 0.5);
  assert.match(new TextDecoder().decode(npyFloats([3], new Float32Array(3))), /\(3,\)/);
  assert.match(new TextDecoder().decode(npyText("äb")), /'<U2'.*\(\)/);
  assert.equal(crc32(new TextEncoder().encode("123456789")), 0xcbf43926);
});

test("NumPy reads the npz, where there is a Python with it", (t) => {
  const file = join(mkdtempSync(join(tmpdir(), "npz-")), "x.npz");
  writeFileSync(file, npzBytes([{ name: "values", shape: [2, 2], values: Float32Array.of(1, 2, 3, NaN) }], [["run", "ü"]]));
  const done = spawnSync(process.env.PYTHON ?? "python3", ["-c", "import numpy, sys; z = numpy.load(sys.argv[1]); print(z['values'].tolist(), z['values'].dtype, ascii(str(z['about'])))", file], { encoding: "utf8" });
  if (done.status !== 0 && /No module named/.test(done.stderr)) return t.skip("no numpy");
  assert.equal(done.stdout.trim(), "[[1.0, 2.0], [3.0, nan]] float32 '{\"run\":\"\\xfc\"}'", done.stderr);
});

/** Bytes of queries and keys as Python writes them. */
function encodeVectors(heads, tokens, channels, q, k) {
  const part = heads * tokens * (4 + channels);
  const view = new DataView(new ArrayBuffer(16 + 2 * part));
  [..."VAQK"].forEach((letter, i) => view.setUint8(i, letter.charCodeAt(0)));
  view.setUint16(4, 1, true);
  view.setUint16(6, heads, true);
  view.setUint32(8, tokens, true);
  view.setUint32(12, channels, true);
  [q, k].forEach((values, which) => {
    for (let vector = 0; vector < heads * tokens; vector++) {
      const own = values.slice(vector * channels, (vector + 1) * channels);
      const most = Math.max(...own.map(Math.abs));
      view.setFloat32(16 + which * part + 4 * vector, most, true);
      own.forEach((value, i) => view.setInt8(16 + which * part + 4 * heads * tokens + vector * channels + i, Math.round((value / (most || 1)) * 127)));
    }
  });
  return view.buffer;
}

test("a score is explained as a direct computation gives it", () => {
  const [heads, tokens, channels, scale] = [2, 4, 3, 0.5];
  const random = (seed) => Array.from({ length: heads * tokens * channels }, (_, i) => Math.sin(seed + 7.3 * i) * (1 + (i % 4)));
  const [q, k] = [random(1), random(2)];
  const layer = decodeQueriesKeys(encodeVectors(heads, tokens, channels, q, k));
  for (const [head, query, key] of [[0, 0, 3], [1, 2, 1]]) {
    const of = (values, token) => values.slice((head * tokens + token) * channels, (head * tokens + token + 1) * channels);
    const scores = [...Array(tokens).keys()].map((other) => scale * of(q, query).reduce((total, value, i) => total + value * of(k, other)[i], 0));
    const weights = scores.map((score) => Math.exp(score) / scores.reduce((total, each) => total + Math.exp(each), 0));
    const found = explainScore(layer, head, query, key, scale);
    of(q, query).forEach((value, i) => near(found.q[i], value, 0.02));
    found.products.forEach((product, i) => near(product, found.q[i] * found.k[i]));
    near(found.dot, found.products.reduce((a, b) => a + b, 0), 1e-5);
    near(found.score, scores[key], 0.06);
    near(found.weight, weights[key], 0.02);
    const without = explainScore(layer, head, query, key, null);
    assert.deepEqual([without.score, without.weight], [null, null]);
    near(without.dot, found.dot);
  }
  assert.deepEqual(byInfluence(Float32Array.of(1, -3, 2)), [1, 2, 0]);
  near(softmax(Float64Array.of(1000, 1000))[0], 0.5);
});

test("a weight that rounding of large queries and keys changes is told from one with a mask", () => {
  const [tokens, channels] = [65, 16];
  let state = 1;
  const random = () => { state = (state * 16807) % 2147483647; return state / 2147483647; };
  const normal = () => Math.sqrt(-2 * Math.log(random())) * Math.cos(2 * Math.PI * random());
  // one channel much larger than the others, which leaves the others few of the 8 bits
  const vectors = (large) => Array.from({ length: tokens * channels }, (_, i) => normal() * (i % channels === large ? 10 : 1));
  const [q, k, scale] = [vectors(3), vectors(5), 0.3];
  const layer = decodeQueriesKeys(encodeVectors(1, tokens, channels, q, k));
  const counts = { alike: 0, rounded: 0, other: 0 };
  let masked = 0;
  for (let query = 0; query < tokens; query++) {
    const scores = Float64Array.from({ length: tokens }, (_, key) => scale * Array.from({ length: channels }, (_, c) => q[query * channels + c] * k[key * channels + c]).reduce((a, b) => a + b, 0));
    const exact = softmax(scores);
    const best = exact.indexOf(Math.max(...exact));
    const hard = exact.map((_, key) => Number(key === best));
    for (let key = 0; key < tokens; key++) {
      const { weight, range } = explainScore(layer, 0, query, key, scale);
      assert.ok(range[0] <= weight && weight <= range[1]);
      counts[compareWeights(weight, range, exact[key], 0)]++;
      if (key === best && exact[best] < 0.5) masked += Number(compareWeights(weight, range, hard[key], 0) === "other");
    }
  }
  assert.ok(counts.rounded > 20, JSON.stringify(counts)); // which a fixed tolerance takes for a mask
  assert.equal(counts.other, 0);
  assert.ok(masked > 5);
  assert.equal(compareWeights(0.3, [0.29, 0.31], 0.45, 0.01), "other");
  assert.equal(compareWeights(0.3, [0.29, 0.31], 0.45, 0.15), "rounded"); // maps in few levels
  assert.equal(compareWeights(0.3, [0.29, 0.31], 0.302, 0), "alike");
});

test("corrupt queries and keys are refused", () => {
  const good = encodeVectors(1, 2, 3, [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]);
  assert.throws(() => decodeQueriesKeys(good.slice(0, 20)), /20 bytes instead of 44/);
  assert.throws(() => decodeQueriesKeys(new ArrayBuffer(3)), /corrupt/);
  const other = new Uint8Array(good.slice(0));
  other[4] = 9;
  assert.throws(() => decodeQueriesKeys(other.buffer), /version 9; this page reads 1/);
});

test("a patch has the hue of the head that gives most, and mixes the others in", () => {
  const heads = [Float32Array.of(0.4, 0, 0.1, NaN), Float32Array.of(0.1, 0, 0.1, 0.3)];
  assert.deepEqual([0, 1, 2, 3].map((patch) => headWithMost(heads, patch)), [0, -1, 0, 1]);
  const mixed = blendOf(heads, 0, 0.4);
  near(mixed.strength, 1);
  near(mixed.red, (16 * HUES[0][0] + HUES[1][0]) / 17, 1e-4);
  assert.equal(blendOf(heads, 1, 0.4).strength, 0);
  assert.deepEqual(patchesWon(heads, 4), [2, 1]);
  assert.deepEqual(patchesWon(heads, 4, (patch) => patch === 0), [1, 1]);
  assert.deepEqual([colouredHeads([], 3, 5), colouredHeads([], 9, 5), colouredHeads([1, 8], 3, 5)], [[0, 1, 2], [0, 1, 2, 3, 4], [1]]);
});

test("interpolation keeps the values at patch centres, stays between them, and leaves out what is hidden", () => {
  const values = Float32Array.of(0, 1, 2, 3);
  const fine = bilinear(values, 2, 2, 6, 6);
  const at = (row, col) => fine[row * 6 + col];
  assert.deepEqual([at(1, 1), at(1, 4), at(4, 1), at(4, 4)], [0, 1, 2, 3]);
  near(at(0, 0), 0);
  near((at(1, 2) + at(1, 3)) / 2, 0.5);
  assert.ok(fine.every((value) => value >= 0 && value <= 3));
  assert.ok(bilinear(values, 2, 2, 6, 6, (i) => i === 3).every((value) => value <= 2 || Number.isNaN(value)));
  assert.deepEqual([...bilinear(Float32Array.of(5), 1, 1, 2, 2)], [5, 5, 5, 5]);
});

test("ticks are round and reach the largest value; a line breaks where a value is missing", () => {
  assert.deepEqual(niceTicks(0, 1, 4), [0, 0.25, 0.5, 0.75, 1]);
  assert.deepEqual(niceTicks(0, 0.93, 4), [0, 0.25, 0.5, 0.75, 1]);
  assert.deepEqual(niceTicks(0, 450, 4), [0, 200, 400, 600]);
  assert.ok(niceTicks(7, 7, 4).length < 50);
  assert.equal(linePath([[0, 1], [1, 2], [2, null], [3, 4]]), "M0.0 1.0L1.0 2.0M3.0 4.0");
  assert.deepEqual([knownMean([1, null, 3]), knownMean([null])], [2, null]);
});

test("a filter leaves wrong predictions and the chosen image, and keys go among those", () => {
  const four = { images: [false, true, true, false].map((right) => ({ right })) };
  assert.deepEqual(shownImages(four, true, 1), [0, 1, 3]);
  assert.deepEqual([nextImage(four, true, 0, 1), nextImage(four, true, 3, 1), nextImage(four, false, 0, -1)], [3, 0, 3]);
  assert.equal(wrongCount(four), 2);
  assert.equal(predictionOf({ top: [["dog", 0.5]], right: false }), "✗ dog 50\u202f%");
});

test("a class-specific map is for the chosen class where one was logged, else for the predicted one", () => {
  const about = { targets: ["dog", "cat", "owl"], target_rows: { legrad: [[1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 3, 2, null], [0, 0, 0, 0, 0, 0, 0]] }, rows: { legrad: [1, 2, 3, 4, 5, 6, 7], vw: [1, 2, 3, 4, 5, 6, 7] } };
  const here = maps(about);
  const state = { ...DEFAULTS, method: "legrad", target: "cat" };
  assert.deepEqual(targetChoices(here.index, here.about, "legrad"), ["dog", "cat", "owl"]);
  assert.deepEqual(targetChoices(here.index, here.about, "vw"), []);
  assert.equal(here.possible(state).target, "cat");
  assert.deepEqual([...here.values(here.possible(state))], [7, 6, 5, 4, 3, 2, NaN]);
  assert.equal(here.possible({ ...state, target: "bee" }).target, "");
  assert.equal(here.possible({ ...state, target: "dog" }).target, "");
  assert.deepEqual([targetRow(here.index, here.about, "relevance", "cat"), targetRow(here.index, here.about, "legrad", "bee")], [-1, -1]);
  assert.match(here.obstacle({ ...state, query: 2 }), /For cat, which is not the predicted class/);
  assert.match(here.matrixObstacle(here.possible({ ...state, target: "" })), /LeGrad was logged for the pooled row only/);
  assert.deepEqual([targetWords(""), targetWords("cat")], ["the predicted class", "the class cat"]);
  assert.deepEqual(targetChoices(maps().index, maps().about, "legrad"), ["dog"]);
});

test("a saved file names run, step, image, method, layer, head and query", () => {
  const state = { ...DEFAULTS, method: "raw", layer: 0, head: 1, query: 3, direction: "to" };
  const about = Object.fromEntries(aboutView(maps({}, 1), state, maps()));
  assert.deepEqual([about.run, about.step, about.image, about.method, about.layer, about.head, about.query, about.direction, about.A], ["r", "4", "7", "raw", "1", "2", "row 1, column 3", "attended by", "r, step 4, image 1"]);
  assert.equal(Object.fromEntries(aboutView(maps(), { ...DEFAULTS, method: "legrad" })).class, "dog");
  assert.equal(fileName(maps({}, 1)), "attention_r_step4_image7");
  const shown = { values: Float32Array.of(1, 2, 3, 4, 5, 6, 7), hidden: new Set([0]) };
  const columns = Object.fromEntries(columnsOfView(maps(), shown, shown, shown).map(({ name, values }) => [name, [...values]]));
  assert.deepEqual([columns.row, columns.column, columns.left_out[0]], [[null, 1, 1, 1, 2, 2, 2], [null, 1, 2, 3, 1, 2, 3], 1]);
  assert.deepEqual(columns.B_minus_A, [1, 2, 3, 4, 5, 6, 7]);
});

test("the values of an image take the layers of their method alone", () => {
  const of = (method, more = {}) => layersNeeded(index(), { ...DEFAULTS, method, ...more }, 1);
  assert.deepEqual([of("raw"), of("rollout"), of("relevance"), of("legrad"), of("relevance", { target: "cat" })], [[1, 1], [0, 1], [2, 2], null, null]);
  assert.deepEqual([bytesNeeded(index(), { ...DEFAULTS, method: "raw" }, 1), bytesNeeded(index(), DEFAULTS, 1)], [2 * 7 * 11, 7 * 11]);
});

test("an exported file without measures or of another run says so", async () => {
  const source = new EmbeddedSource({ run: "r", steps: { 4: { index: index(), images: { 0: { png: "", layers: [], queries_keys: ["QUI="] } } } } });
  assert.deepEqual((await source.measures("r")).measures, [null]);
  assert.deepEqual([...new Uint8Array(await source.queriesKeys({ run: "r", step: 4, image: 0 }, 0))], [65, 66]);
  await assert.rejects(source.queriesKeys({ run: "r", step: 4, image: 0 }, 1), /not in this file/);
  await assert.rejects(source.step("other", 4), /404/);
});
