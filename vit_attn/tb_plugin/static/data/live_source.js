// @ts-check
/** Source of the live page: the server of `vit-attn explore`, which asks running networks. */

import { RequestError, ServerSource } from "./source.js";

/** @typedef {import("./state.js").Place} Place */
/** @typedef {{logits: number[], probabilities: number[], note?: string}} Prediction of all classes; note: which part of the picture the network sees */
/** @typedef {{image: number, name: string, problem?: string}} Picture */

/** Replies that are kept: predictions of that many pictures, networks and cuts. */
const MOST_PREDICTIONS = 64;
const GONE = "The server does not answer. Is `vit-attn explore` still running in its terminal?";

export class LiveSource extends ServerSource {
  /** @param {URL} base the server's routes */
  constructor(base) {
    super(base);
    this.live = false; // no runs and steps come by themselves
    this.asks = this.ofPictures = true;
    /** @type {Map<string, Promise<string[]>>} */
    this.classesOf = new Map();
    /** @type {Map<string, Promise<Prediction>>} */
    this.predictions = new Map();
  }

  /** @param {URL} url @param {RequestInit} [options] */
  async fetch(url, options) {
    let reply;
    try {
      reply = await fetch(url, options);
    } catch {
      throw failure(url, 0, GONE);
    }
    if (reply.ok) return reply;
    const text = (await reply.text()).slice(0, 600).trim();
    throw failure(url, reply.status, text || `The server answered ${reply.status} to ${url.pathname}.`);
  }

  /** Send a question. @param {string} route @param {unknown} question */
  async post(route, question) {
    const headers = { "Content-Type": "application/json" };
    return (await this.fetch(this.url(route), { method: "POST", headers, body: JSON.stringify(question) })).json();
  }

  /** Pictures of the session, in their order. @returns {Promise<Picture[]>} */
  async pictures() {
    return (await (await this.fetch(this.url("pictures"))).json()).pictures;
  }

  /** Give the server a picture. @param {File} file @returns {Promise<Picture>} */
  async addPicture(file) {
    const headers = { "X-Name": encodeURIComponent(file.name || "picture"), "Content-Type": "application/octet-stream" };
    return (await this.fetch(this.url("picture"), { method: "POST", headers, body: file })).json();
  }

  /** The list of cuts of a step. @param {string} run @param {number} step @returns {Promise<import("../asking/cuts.js").Cut[]>} */
  async cuts(run, step) {
    return (await (await this.fetch(this.url("cuts", { run, step }))).json()).cuts;
  }

  /** The index of a step, with the details of one picture. @param {string} run @param {number} step @param {number} image */
  async step(run, step, image = 0) {
    const [index, classes] = await Promise.all([this.fetch(this.url("step", { run, step, image })).then((reply) => reply.json()), this.classes(run)]);
    return { ...index, asks: true, ofPictures: true, classes };
  }

  /** Names of a network's classes. @param {string} run */
  classes(run) {
    return remembered(this.classesOf, run, async () => (await (await this.fetch(this.url("classes", { run }))).json()).names);
  }

  /** Logits and probabilities of all classes. @param {Place} place */
  prediction({ run, step, image }) {
    return remembered(this.predictions, `${run} ${step} ${image}`, async () => (await this.fetch(this.url("prediction", { run, step, image }))).json());
  }

  /** One value for each token, by any method. @param {Place} place @param {import("../maps/questions.js").Question} question */
  async row({ run, step, image }, question) {
    const reply = await this.fetch(this.url("row", { run, step, image, ...question }));
    return new Float32Array(await reply.arrayBuffer());
  }
}

/** A failed request whose message is the server's sentence alone. @param {URL} url @param {number} status @param {string} sentence */
function failure(url, status, sentence) {
  const error = new RequestError(url.pathname, status, sentence);
  error.message = sentence;
  return error;
}

/** What was fetched before, or is being fetched; what failed is fetched again. @template T @param {Map<string, Promise<T>>} kept @param {string} key @param {() => Promise<T>} ask @returns {Promise<T>} */
function remembered(kept, key, ask) {
  const known = kept.get(key);
  if (known) return known;
  const asked = ask();
  kept.set(key, asked);
  asked.catch(() => kept.delete(key));
  const [oldest] = kept.keys();
  if (kept.size > MOST_PREDICTIONS) kept.delete(oldest);
  return asked;
}
