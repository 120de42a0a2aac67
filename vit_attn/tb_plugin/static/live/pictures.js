// @ts-check
/** Pictures of the user: dropped anywhere, pasted, or chosen as files; and what is said while there are none. */

import { h, setText } from "../drawing/dom.js";
import { followPicture, sizeProblem } from "./search.js";

/** @typedef {import("../data/live_source.js").Picture} Picture */

export class Pictures {
  /** @param {import("../page.js").Page} page @param {import("../data/live_source.js").LiveSource} source */
  constructor(page, source) {
    this.page = page;
    this.source = source;
    /** @type {Picture[]} */
    this.known = [];
    /** What was shown when a problem was said. @type {import("../data/state.js").Place | null} */
    this.saidOf = null;
    this.input = h("input", { type: "file", accept: "image/*", multiple: true, hidden: true, onchange: () => this.add([...(this.input.files ?? [])]) });
    this.more = h("button", { type: "button", class: "add", title: "Or drop it anywhere on this page, or paste one", onclick: () => this.input.click() }, "＋ Add a picture");
    this.text = h("span");
    this.problem = h("div", { class: "alert", role: "alert", hidden: true }, this.text, h("button", { type: "button", onclick: () => this.say([]) }, "Dismiss"));
    this.title = h("h1", {}, "Ask a vision transformer about a picture of yours");
    this.choose = h("button", { type: "button", class: "primary", onclick: () => this.input.click() }, "Choose a picture");
    this.element = this.welcome();
    this.veil = h("div", { class: "veil", hidden: true }, h("p", {}, "Drop it to see what the network makes of it"));
    page.store.listeners.push((changed) => changed.has("image") && this.follow());
    this.listen();
  }

  welcome() {
    const steps = [
      "What it predicts, with the probability of every class.",
      "Which patches speak for that class, or for another one.",
      "What each patch attends to, in every layer and head.",
      "How the prediction changes when you cut a patch or a head.",
    ];
    return h("section", { class: "welcome", "aria-label": "Add a picture", hidden: true }, this.title,
      h("p", {}, "Drop a picture anywhere on this page, paste one, or"), this.choose,
      h("p", {}, "Then you see:"), h("ul", {}, ...steps.map((step) => h("li", {}, step))),
      h("p", { class: "hint" }, "The network runs on this computer. Your pictures do not leave it."));
  }

  /** Give the parts their places on the page, once it is built. */
  place() {
    const { alert, lead, root, strip } = this.page;
    alert?.element.after(this.problem);
    strip?.element.append(this.more, this.input);
    root?.append(this.veil);
    if (lead) lead.element.hidden = true;
  }

  listen() {
    const withFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.some((type) => type === "Files" || type === "text/uri-list");
    document.addEventListener("dragover", (event) => {
      if (!withFiles(event)) return;
      event.preventDefault();
      this.veil.hidden = false;
    });
    document.addEventListener("dragleave", (event) => { this.veil.hidden ||= !event.relatedTarget; }); // the pointer has left the window
    document.addEventListener("drop", (event) => {
      this.veil.hidden = true;
      if (!withFiles(event)) return;
      event.preventDefault();
      this.add([...(event.dataTransfer?.files ?? [])]);
    });
    document.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length) this.add(files);
    });
  }

  /** Give the server files, one after another, and show the first that it can read. @param {File[]} files */
  async add(files) {
    if (!files.length) return this.say(["What was dropped is no file. Save the picture first, then drop it from its folder."]);
    this.say([]);
    const problems = [];
    let first = true;
    for (const [i, file] of files.entries()) {
      const tooLarge = sizeProblem(file);
      if (tooLarge) {
        problems.push(tooLarge);
        continue;
      }
      this.page.say(files.length > 1 ? `Reading ${file.name}, ${i + 1} of ${files.length} …` : `Reading ${file.name} …`);
      try {
        const picture = await this.source.addPicture(file);
        this.known.push(picture);
        if (first) await this.show(picture.image);
        first = false;
      } catch (error) {
        problems.push(error instanceof Error ? error.message : String(error));
      }
    }
    this.input.value = ""; // the same file can be chosen again
    this.page.say("");
    if (files.length > 1) await this.list();
    this.say(problems);
  }

  /** Show a new picture: the network uncut, and the pooled row for the predicted class. @param {number} image */
  async show(image) {
    const { here, store } = this.page;
    this.page.quietly({ image, step: 0, query: "pool", target: "", pin: here ? followPicture(store.state.pin, here.place, image) : store.state.pin });
    await this.page.sync();
  }

  /** List the pictures that were added after the one that is shown. */
  async list() {
    const { here } = this.page;
    if (!here) return;
    const { images } = await this.source.step(here.place.run, here.place.step, here.place.image);
    here.index.images = images;
    this.page.draw();
  }

  /** Have the other side of a comparison go along to the chosen picture. */
  follow() {
    const { here, store } = this.page;
    if (here) this.page.quietly({ pin: followPicture(store.state.pin, here.place, store.state.image) });
  }

  /** Choose a picture that there is; returns whether there is one. */
  async settle() {
    if (!this.page.here) this.known = await this.source.pictures();
    const good = this.known.filter(({ problem }) => !problem);
    const { image } = this.page.store.state;
    const broken = this.known.find((picture) => picture.image === image)?.problem;
    if (broken && this.page.here) this.goBack(broken);
    else if (good.length && !good.some((picture) => picture.image === image)) this.page.quietly({ image: good[0].image });
    return good.length > 0;
  }

  /** Stay with what is shown, and say why. @param {string} problem */
  goBack(problem) {
    const { here, store } = this.page;
    const { pin, image } = store.state;
    if (here) this.page.quietly({ ...here.place, pin: followPicture(pin, { ...here.place, image }, here.place.image) });
    this.say([problem]);
  }

  /** Go back to a picture that can be read, after the chosen one could not; returns whether there was such a one. */
  async recover() {
    const { image } = this.page.store.state;
    const found = await this.source.pictures().catch(() => []);
    const problem = found.find((picture) => picture.image === image)?.problem;
    const { here } = this.page;
    if (!problem || here?.place.image === image) return false;
    this.known = found;
    this.goBack(problem);
    return true;
  }

  /** Say what could not be read. @param {string[]} problems */
  say(problems) {
    setText(this.text, problems.map((problem) => (problem.endsWith(".") ? problem : `${problem}.`)).join(" "));
    this.problem.hidden = !problems.length;
    this.saidOf = this.page.here?.place ?? null;
  }

  draw() {
    const { here, lead, runs, state } = this.page;
    if (lead) lead.element.hidden = !here;
    this.saidOf ??= here?.place ?? null;
    if (here && (here.place.run !== this.saidOf?.run || here.place.image !== this.saidOf.image)) this.say([]); // the next one is here
    if (here) this.title.remove(); // the page has one heading: that of the maps
    else this.element.prepend(this.title);
    const name = state.run || runs[0]?.name;
    setText(this.title, runs.length === 1 || !name ? `Ask ${name || "a vision transformer"} about a picture of yours` : `Ask ${runs.length} networks about a picture of yours`);
  }
}
