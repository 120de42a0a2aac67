// @ts-check
/** Sources of the data: TensorBoard's server, or the exported file itself. */

/** A failed request, with its status and URL. */
export class RequestError extends Error {
  /** @param {string} url @param {number} status 0 if no reply came @param {string} text */
  constructor(url, status, text) {
    super(`${status ? `${status}` : "no reply"} · GET ${url} · ${text}`);
    this.status = status;
    this.url = url;
  }
}

/** Fetches from the routes of the plugin. */
export class ServerSource {
  /** @param {URL} base the plugin's routes */
  constructor(base) {
    this.base = base;
    this.live = true; // whether new runs and steps may come
    this.asks = false; // whether a running network answers questions
    this.ofPictures = false; // whether it has pictures of networks as they are, and no training
  }

  /** @param {string} route @param {Record<string, string | number>} parameters */
  url(route, parameters = {}) {
    const url = new URL(route, this.base);
    for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, String(value));
    return url;
  }

  /** @param {URL} url */
  async fetch(url) {
    const place = url.pathname.replace(/.*\/plugin\//, "") + decodeURIComponent(url.search.replaceAll("+", " "));
    let reply;
    try {
      reply = await fetch(url);
    } catch (error) {
      throw new RequestError(place, 0, "is TensorBoard still running?");
    }
    if (!reply.ok) throw new RequestError(place, reply.status, (await reply.text()).slice(0, 300));
    return reply;
  }

  /** @returns {Promise<{name: string, problem: string}[]>} */
  async runs() {
    return (await (await this.fetch(this.url("runs"))).json()).runs;
  }

  /** @param {string} run @returns {Promise<number[]>} */
  async steps(run) {
    return (await (await this.fetch(this.url("steps", { run }))).json()).steps;
  }

  /** @param {string} run @param {number} step @param {number} [_image] whose details are wanted, where they are not of all @returns {Promise<import("../maps/view.js").Index>} */
  async step(run, step, _image) {
    return (await this.fetch(this.url("step", { run, step }))).json();
  }

  /** @param {import("./state.js").Place} place */
  imageUrl({ run, step, image }) {
    return this.url("image", { run, step, image }).href;
  }

  /** Maps of the layers from first to last. @param {import("./state.js").Place} place @param {number} first @param {number} last */
  async maps({ run, step, image }, first, last) {
    const url = this.url("maps", { run, step, image, layers: `${first}-${last}` });
    return (await this.fetch(url)).arrayBuffer();
  }

  /** Measures of the heads at every step. @param {string} run @returns {Promise<RunMeasures>} */
  async measures(run) {
    return (await this.fetch(this.url("measures", { run }))).json();
  }

  /** Queries and keys of a layer. @param {import("./state.js").Place} place @param {number} layer */
  async queriesKeys({ run, step, image }, layer) {
    return (await this.fetch(this.url("queries_keys", { run, step, image, layer }))).arrayBuffer();
  }
}

/** @typedef {{steps: number[], measures: (Record<string, (number | null)[][]> | null)[], layers: string[], heads: number[]}} RunMeasures by step; then by measure, layer and head */
/** @typedef {{png: string, layers: string[], queries_keys?: string[]}} EmbeddedImage */
/** @typedef {{run: string, pictures?: boolean, measures?: RunMeasures, steps: Record<string, {index: import("../maps/view.js").Index, images: Record<string, EmbeddedImage>}>}} Embedded */

/** Reads what `vit-attn export-html`, or `attend` and `show` of pictures, wrote into the page. */
export class EmbeddedSource {
  /** @param {Embedded} data */
  constructor(data) {
    this.data = data;
    this.live = this.asks = false;
    this.ofPictures = Boolean(data.pictures);
  }

  async runs() {
    return [{ name: this.data.run, problem: "" }];
  }

  /** @param {string} _run */
  async steps(_run) {
    return Object.keys(this.data.steps).map(Number).sort((a, b) => a - b);
  }

  /** @param {string} run @param {number} step @param {number} [_image] */
  async step(run, step, _image) {
    if (run !== this.data.run || !this.data.steps[step]) throw new RequestError(`${run}, step ${step}`, 404, "this file does not have it");
    return { ...this.data.steps[step].index, ofPictures: this.ofPictures };
  }

  /** @param {import("./state.js").Place} place */
  imageUrl({ step, image }) {
    return `data:image/png;base64,${this.data.steps[step].images[image].png}`;
  }

  /** @param {import("./state.js").Place} place @param {number} first @param {number} last */
  async maps({ step, image }, first, last) {
    const blobs = this.data.steps[step].images[image].layers.slice(first, last + 1).map((text) => atob(text));
    const bytes = new Uint8Array(blobs.reduce((total, blob) => total + blob.length, 0));
    let at = 0;
    for (const blob of blobs) for (let i = 0; i < blob.length; i++) bytes[at++] = blob.charCodeAt(i);
    return bytes.buffer;
  }

  /** @param {string} run @returns {Promise<RunMeasures>} */
  async measures(run) {
    const steps = await this.steps(run);
    return this.data.measures ?? { steps, measures: steps.map(() => null), layers: [], heads: [] };
  }

  /** @param {import("./state.js").Place} place @param {number} layer */
  async queriesKeys({ step, image }, layer) {
    const blob = this.data.steps[step].images[image].queries_keys?.[layer];
    if (!blob) throw new Error("queries and keys of this image are not in this file");
    return Uint8Array.from(atob(blob), (letter) => letter.charCodeAt(0)).buffer;
  }
}
