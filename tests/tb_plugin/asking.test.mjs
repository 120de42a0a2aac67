// A page that asks running networks: its questions, what is said of pictures without a label, and the search for a class.
// Run by test_arithmetic.py.
import assert from "node:assert/strict";
import test from "node:test";

const folder = new URL("../../vit_attn/tb_plugin/static/", import.meta.url);
const load = (name) => import(new URL(name, folder));
const { DEFAULTS } = await load("data/state.js");
const { LiveSource } = await load("data/live_source.js");
const { askNetwork, failureOf } = await load("data/loading.js");
const { missingOfLink } = await load("data/link.js");
const { findClasses, followPicture, listedClasses, sizeProblem } = await load("live/search.js");
const { obstacleTo } = await load("maps/compare.js");
const { faithfulnessNotes } = await load("maps/faithfulness.js");
const { hasMethod, methodChoices } = await load("maps/methods.js");
const { isLabelled, predictionOf, predictionPhrase, shownImages, wrongCount } = await load("maps/predictions.js");
const { loadValues } = await load("maps/values.js");
const { Maps, placeName } = await load("maps/view.js");
const { aboutView, fileName } = await load("saving/record.js");
const { invitation, sentenceOf, sentenceOfBoth } = await load("words/sentence.js");

const METHODS = [
  { name: "relevance", label: "relevance", reference: "", class_specific: true, has_query: true, rows: false },
  { name: "rollout", label: "rollout, mean", reference: "", class_specific: false, has_query: true, rows: false },
  { name: "gradient_rollout", label: "gradient rollout", reference: "", class_specific: true, has_query: true, rows: true },
  { name: "legrad", label: "LeGrad", reference: "", class_specific: true, has_query: false, rows: true },
];
const IMAGE = { label: null, right: null, name: "cat.jpg", top: [["tabby", 0.6], ["tiger", 0.3]], size: [8, 8], picture: "p" };
const INDEX = { asks: true, ofPictures: true, classes: ["tench", "tabby", "tiger"], grid: [2, 2], prefix: ["CLS"], layers: ["a", "b"], heads: [2, 2], pooled: [1, 0, 0, 0, 0], relevance: true, note: "", methods: METHODS, images: [IMAGE, { ...IMAGE, name: "dog.png", top: [] }] };
const layer = (heads) => ({ heads, tokens: 5, peaks: new Float32Array(5 * heads).fill(0.2), codes: new Uint8Array(25 * heads).fill(255) });
const live = (change = {}, held = true) => new Maps({ run: "vit", step: 0, image: 0 }, { ...INDEX, ...change }, held ? [layer(2), layer(2)] : [null, null], held ? layer(1) : null);
const asked = (maps, change) => maps.question(maps.possible({ ...DEFAULTS, ...change }));

test("the network is asked for what the page cannot compute from its maps, and for nothing else", () => {
  const maps = live();
  for (const method of ["relevance", "raw", "rollout"]) for (const query of ["pool", 3]) assert.equal(asked(maps, { method, query }), null);
  assert.deepEqual(asked(maps, { method: "gradient_rollout", query: 3 }), { method: "gradient_rollout", query: 3, target: "" });
  assert.deepEqual(asked(maps, { method: "relevance", target: "tench" }), { method: "relevance", query: "pool", target: 0 });
  assert.deepEqual(asked(maps, { method: "legrad", target: "tiger" }), { method: "legrad", query: "pool", target: 2 });
  assert.equal(asked(maps, { method: "relevance", target: "tabby" }), null); // the predicted class
  assert.equal(asked(maps, { method: "rollout", target: "tench" }), null); // the same for every class
  const with_rows = live({ images: [{ ...IMAGE, rows: { legrad: [1, 2, 3, 4, 5] } }] });
  assert.equal(asked(with_rows, { method: "legrad" }), null);
  assert.deepEqual([...with_rows.values({ ...DEFAULTS, method: "legrad" })], [1, 2, 3, 4, 5]);
});

test("where maps are too large to be loaded, the network rolls out up to a layer", () => {
  const maps = live({}, false);
  assert.deepEqual(asked(maps, { method: "rollout", layer: 0, head: "max", query: 2 }), { method: "rollout", query: 2, target: "", layer: 0, fusion: "max" });
  assert.deepEqual(asked(maps, { method: "rollout" }), { method: "rollout", query: "pool", target: "", layer: 1, fusion: "mean" });
  assert.deepEqual(asked(maps, {}), { method: "relevance", query: "pool", target: "" });
  assert.equal(asked(maps, { method: "raw" }), null);
});

test("a file of pictures is not asked, and says what it has without a word of runs, steps and logs", () => {
  const maps = live({ asks: false, images: [{ ...IMAGE, targets: ["tabby", "tench"], target_rows: {} }, IMAGE] });
  assert.equal(asked(maps, { method: "gradient_rollout" }), null);
  assert.equal(placeName(maps), "vit, cat.jpg");
  assert.equal(fileName(maps), "attention_vit_cat");
  assert.deepEqual(aboutView(maps, maps.possible(DEFAULTS))[0], ["network", "vit"]);
  const wanted = { run: "deit", step: 3, image: 4, target: "owl", pin: { run: "beit", step: 2, image: 0 } };
  const said = [
    ...missingOfLink(wanted, maps, live()), ...missingOfLink({ step: 3 }, maps, null),
    invitation(maps, { ...DEFAULTS, method: "gradient_rollout" }), maps.obstacle({ ...DEFAULTS, method: "legrad", query: 2 }),
    maps.obstacle({ ...DEFAULTS, target: "tench", query: 2 }), maps.matrixObstacle({ ...DEFAULTS, method: "legrad" }),
    ...faithfulnessNotes(maps, maps.possible(DEFAULTS)), ...faithfulnessNotes(maps, { ...DEFAULTS, method: "raw", layer: 0 }),
  ].join(" ");
  assert.match(said, /network deit, which is not in this file: vit is shown.*cuts that are not in this file/s);
  assert.match(said, /LeGrad is in this file for the pooled row only/);
  assert.doesNotMatch(said, /\b(logged|steps?|run|runs)\b/);
});

test("a log is never asked", () => {
  assert.equal(asked(live({ asks: false }), { method: "gradient_rollout" }), null);
  assert.equal(live({ asks: false }).possible({ ...DEFAULTS, target: "tench" }).target, "");
});

test("a reply is shown when it has come, kept for each question, and a failure is a sentence until it is asked again", async () => {
  const maps = live();
  const state = { ...DEFAULTS, method: "gradient_rollout", query: 3 };
  const calls = [];
  const source = { row: async (place, question) => (calls.push([place.image, question.query]), Float32Array.of(1, 2, 3, 4, question.query)) };
  assert.ok(!maps.has(state));
  assert.equal(maps.obstacle(state), "Asking the network …");
  await askNetwork(source, maps, state);
  await askNetwork(source, maps, state); // known
  await askNetwork(source, maps, { ...state, query: 2 });
  assert.deepEqual(calls, [[0, 3], [0, 2]]);
  assert.ok(maps.has(state));
  assert.deepEqual([...maps.values(state)], [1, 2, 3, 4, 3]);
  const broken = { row: async () => { throw new Error("The gradient is not finite."); } };
  await askNetwork(broken, maps, { ...state, query: 1 });
  assert.equal(maps.obstacle({ ...state, query: 1 }), "The gradient is not finite.");
  assert.equal(failureOf(maps, { ...state, query: 1 }), "The gradient is not finite.");
  assert.equal(failureOf(maps, state), "");
  maps.replies.forgetFailures();
  assert.ok(!maps.has({ ...state, query: 1 }) && maps.has(state));
  await askNetwork({ row: async () => new Float32Array(3) }, maps, { ...state, query: 1 });
  assert.match(maps.obstacle({ ...state, query: 1 }), /3 of 5 tokens/);
});

test("what has no row, no column or no matrix says so in words of a running network", () => {
  const maps = live();
  const state = { ...DEFAULTS, method: "gradient_rollout", query: 3 };
  assert.match(maps.obstacle({ ...state, method: "legrad" }), /^LeGrad has no query/);
  assert.match(maps.obstacle({ ...state, direction: "to" }), /^Gradient rollout is computed for what a query attends to\. Choose “attends to”/);
  assert.equal(maps.obstacle({ ...state, method: "relevance", direction: "to" }), "");
  assert.equal(maps.matrixObstacle(state), "Gradient rollout is computed for one query at a time, so there is no matrix of all 5.");
  assert.match(maps.matrixObstacle({ ...state, method: "relevance", target: "tench" }), /^Relevance for tench is computed for one query/);
  assert.equal(maps.matrixObstacle({ ...state, method: "relevance" }), "");
  for (const text of [maps.obstacle(state), maps.matrixObstacle(state), ...faithfulnessNotes(maps, state), invitation(maps, state)]) assert.doesNotMatch(text, /logged|step/);
});

test("the values of another picture are asked for, and none of its maps is loaded", async () => {
  const source = { maps: () => assert.fail("maps were loaded"), row: async (place, { method }) => Float32Array.of(place.image, method.length, 0, 0, 0) };
  for (const method of ["relevance", "rollout", "legrad"]) assert.deepEqual([...(await loadValues(source, { run: "vit", step: 0, image: 1 }, INDEX, { ...DEFAULTS, method })).slice(0, 2)], [1, method.length]);
});

test("methods of a running network are listed once, and relevance is one of them though its maps are not sent", () => {
  const methods = METHODS.map((method) => ({ ...method, rows: true }));
  assert.deepEqual(methodChoices({ ...INDEX, methods }).map(([name]) => name), ["relevance", "raw", "rollout", "gradient_rollout", "legrad"]);
  assert.ok(hasMethod({ ...INDEX, relevance: false }, "relevance"));
  assert.ok(!hasMethod({ ...INDEX, relevance: false, methods: [] }, "relevance"));
});

test("a picture without a label is neither right nor wrong", () => {
  assert.ok(!isLabelled(INDEX));
  assert.equal(wrongCount(INDEX), 0);
  assert.deepEqual(shownImages(INDEX, true, -1), []);
  assert.equal(predictionOf(IMAGE), "tabby 60\u202f%");
  assert.equal(predictionPhrase(IMAGE), "predicted tabby 60\u202f%");
  assert.equal(predictionPhrase({ label: "cat", right: false, top: [["dog", 0.5]] }), "true label cat, predicted dog ✗ 50\u202f%");
  assert.equal(predictionPhrase(INDEX.images[1]), "");
  assert.equal(predictionOf(INDEX.images[1]), "");
});

test("cuts are named in the sentence, the place and the file", () => {
  const cut = live({ cuts: 3 });
  const state = { ...DEFAULTS, method: "rollout" };
  assert.equal(sentenceOf(cut, state), "What the CLS token attends to, through all layers (attention rollout), with 3 cuts.");
  assert.equal(sentenceOf(live({ cuts: 1 }), state), "What the CLS token attends to, through all layers (attention rollout), with 1 cut.");
  assert.equal(placeName(cut), "vit, with 3 cuts, cat.jpg");
  assert.equal(placeName(live()), "vit, cat.jpg");
  assert.deepEqual([fileName(cut), fileName(live())], ["attention_vit_3cuts_cat", "attention_vit_cat"]);
  const about = Object.fromEntries(aboutView(cut, state, live()));
  assert.deepEqual([about.network, about.cuts, about.file, about.A, about.step, about.label], ["vit", "3", "cat.jpg", "vit, cat.jpg", undefined, undefined]);
});

test("two networks that predict other classes are named in one sentence", () => {
  const [a, b] = ["great white shark", "tabby"].map((name) => sentenceOf(live({ images: [{ ...IMAGE, top: [[name, 0.5]] }] }), DEFAULTS));
  assert.equal(sentenceOfBoth(a, b, true), "A and B: which patches speak for the prediction “great white shark” in A, “tabby” in B (relevance: attention weighted by gradients, through all layers).");
  assert.match(sentenceOfBoth(a, b), /^A: which patches .*; B: which patches/);
  const cut = sentenceOf(live({ cuts: 2 }), DEFAULTS);
  assert.match(sentenceOfBoth(b, cut, true), /^A: .*; B: .* with 2 cuts\.$/);
});

test("two networks that see other crops of a picture are not subtracted", () => {
  const [a, b] = [[0, 0, 1, 1], [0, 0.1, 1, 0.8]].map((crop) => live({ images: [{ ...IMAGE, crop }] }));
  assert.match(obstacleTo(a, b, DEFAULTS), /see other crops of the picture/);
  assert.equal(obstacleTo(a, a, DEFAULTS), "");
  assert.equal(obstacleTo(live(), live(), DEFAULTS), "");
});

test("a link to what is not open says it in words of networks and pictures", () => {
  assert.match(missingOfLink({ run: "deit" }, live(), null)[0], /network deit, which is not open/);
  assert.match(missingOfLink({ step: 4 }, live(), null)[0], /cuts that this server does not have/);
  assert.match(missingOfLink({ target: "owl" }, live(), null)[0], /class owl, which this network does not have/);
  assert.deepEqual(missingOfLink({ run: "vit", step: 0, target: "tench" }, live(), null), []);
});

test("a class is found by parts of its name, the beginning first, then the more probable", () => {
  const names = ["dining table", "tabby", "table lamp", "Pâté", "pool table"];
  const found = (text) => findClasses(names, [0.1, 0.2, 0.3, 0.1, 0.3], text).map(({ name }) => name);
  assert.deepEqual(found("TAB"), ["table lamp", "tabby", "pool table", "dining table"]);
  assert.deepEqual(found("table din"), ["dining table"]);
  assert.deepEqual(found("pate"), ["Pâté"]);
  assert.deepEqual(found("owl"), []);
  assert.equal(found("").length, 5);
  assert.deepEqual(findClasses(["a"], null, ""), [{ name: "a", probability: null }]);
});

test("the chosen class is listed though it is not among the most probable", () => {
  assert.deepEqual(listedClasses(IMAGE.top, "tench", INDEX.classes, [0.01, 0.6, 0.3]).at(-1), { name: "tench", probability: 0.01 });
  assert.equal(listedClasses(IMAGE.top, "tabby", INDEX.classes, null).length, 2);
  assert.equal(listedClasses(IMAGE.top, "owl", INDEX.classes, null).length, 2); // a class of another network
  assert.equal(listedClasses(IMAGE.top, "tench", INDEX.classes, null).at(-1).probability, null);
});

test("a comparison follows the chosen picture, but a pinned picture stays", () => {
  const shown = { run: "vit", step: 0, image: 1 };
  assert.deepEqual(followPicture({ run: "deit", step: 0, image: 1 }, shown, 2), { run: "deit", step: 0, image: 2 });
  assert.deepEqual(followPicture({ run: "vit", step: 3, image: 1 }, shown, 2), { run: "vit", step: 3, image: 2 });
  assert.deepEqual(followPicture({ run: "vit", step: 0, image: 1 }, shown, 2), { run: "vit", step: 0, image: 1 });
  assert.deepEqual(followPicture({ run: "deit", step: 0, image: 0 }, shown, 2), { run: "deit", step: 0, image: 0 });
  assert.equal(followPicture(null, shown, 2), null);
});

test("the live source sends what it is asked, says what the server said, and asks again after a failure", async (context) => {
  const requests = [];
  let reply = () => new Response("");
  context.mock.method(globalThis, "fetch", async (url, options = {}) => {
    requests.push([options.method ?? "GET", url.pathname + url.search, options.headers?.["X-Name"]]);
    return reply();
  });
  const source = new LiveSource(new URL("http://127.0.0.1:1/"));
  const place = { run: "vit", step: 2, image: 1 };
  reply = () => new Response(Float32Array.of(0.5, 0.25));
  assert.deepEqual([...(await source.row(place, { method: "relevance", query: 3, target: "" }))], [0.5, 0.25]);
  reply = () => new Response("no such class", { status: 422 });
  await assert.rejects(source.prediction(place), { message: "no such class", status: 422 });
  reply = () => Response.json({ logits: [1], probabilities: [1] });
  await Promise.all([source.prediction(place), source.prediction(place)]);
  reply = () => Response.json({ image: 0, name: "über.png" });
  await source.addPicture({ name: "über.png" });
  assert.deepEqual(requests, [
    ["GET", "/row?run=vit&step=2&image=1&method=relevance&query=3&target=", undefined],
    ["GET", "/prediction?run=vit&step=2&image=1", undefined],
    ["GET", "/prediction?run=vit&step=2&image=1", undefined],
    ["POST", "/picture", "%C3%BCber.png"],
  ]);
  reply = () => { throw new TypeError("network"); };
  await assert.rejects(source.runs(), { message: /^The server does not answer\. Is `vit-attn explore` still running/, status: 0 });
});

test("a picture that is too large is named with its size before it is sent", () => {
  assert.equal(sizeProblem({ name: "a.png", size: 50e6 }), "");
  assert.equal(sizeProblem({ name: "big.png", size: 61e6 }), "big.png is 61 MB; pictures of up to 50 MB are taken");
  assert.match(sizeProblem({ name: "big.png", size: 50e6 + 1 }), /is 50.1 MB/);
});
