// @ts-check
/** The view in the address: of the exported file, or of TensorBoard's page around the frame. */

import { h, setText } from "../drawing/dom.js";
import { decodeLink, followLink, missingOfLink, replaceLink } from "./link.js";
import { RequestError } from "./source.js";

/** TensorBoard keeps names of this form for the plugin, and leaves them in its address. */
const IN_TENSORBOARD = "p.vit_attn.";
/** Browsers refuse to change the address much more often. */
const WAIT_MS = 300;

export class Address {
  /** @param {import("../page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.host = hostWindow(page.source.live);
    this.before = page.source.live ? IN_TENSORBOARD : "";
    /** @type {Partial<import("./state.js").State> | null} */
    this.wanted = null;
    this.bad = /** @type {string[]} */ ([]);
    this.timer = 0;
    this.message = h("span");
    this.notice = h("div", { class: "notice", role: "status", hidden: true }, this.message, h("button", { type: "button", onclick: () => { this.notice.hidden = true; } }, "Dismiss"));
    this.read();
    this.host?.addEventListener("hashchange", () => this.read() && page.sync());
    page.store.listeners.push(() => this.write());
  }

  /** Take the view from the address, if it names one; returns whether it did. */
  read() {
    const hash = this.host?.location.hash.replace(/^#/, "") ?? "";
    const { state, bad } = decodeLink(hash, this.before);
    const ours = Object.keys(state).length > 0;
    if (!ours && !bad.length) return false;
    if (hash === this.hash().replace(/^#/, "")) {
      if (this.page.source.asks) this.wanted = state; // after a reload: the server may have been started again
      return false;
    }
    this.bad = bad;
    this.wanted = state;
    this.notice.hidden = true;
    if (ours) this.page.quietly(followLink(this.page.store.state, state));
    return ours;
  }

  /** The hash of what is shown now. */
  hash() {
    return replaceLink(this.host?.location.hash ?? "", this.page.store.state, this.before);
  }

  /** Put the view into the address: at once, and while it changes quickly, now and then. */
  write() {
    if (this.timer) return;
    this.put();
    this.timer = window.setTimeout(() => {
      this.timer = 0;
      this.put();
    }, WAIT_MS);
  }

  put() {
    try {
      if (this.host && this.host.location.hash !== this.hash()) this.host.history.replaceState(this.host.history.state, "", this.hash());
    } catch {
      // a browser that forbids it, or has had enough: the button copies the link
    }
  }

  /** Say once what a link asked for and is not here. */
  check() {
    const { here, pinned } = this.page;
    this.write();
    if (!here || !this.wanted) return;
    const missing = missingOfLink(this.wanted, here, pinned);
    const unread = this.bad.length ? [`Parts of the link mean nothing here and were left out: ${this.bad.join(", ")}.`] : [];
    for (const sentence of [...unread, ...missing]) this.say(sentence);
    [this.wanted, this.bad] = [null, []];
  }

  /** End the comparison with what is not in the log; other errors go on. @param {import("./state.js").Place} pin @param {unknown} error @returns {null} */
  endComparison({ run, step }, error) {
    if (!(error instanceof RequestError) || error.status < 400 || error.status >= 500) throw error;
    this.page.quietly({ pin: null });
    const { asks, ofPictures } = this.page.source;
    const which = ofPictures ? run : `${run}, step ${step.toLocaleString("en")},`;
    this.say(`The comparison with ${which} has ended: ${error.status === 404 && !asks ? `it is not in this ${ofPictures ? "file" : "log"}` : error.message.replace(/\.$/, "")}.`);
    return null;
  }

  /** Say more, such as what has gone from the log. @param {string} sentence */
  say(sentence) {
    const before = this.notice.hidden ? "" : `${this.message.textContent} `;
    setText(this.message, `${before}${sentence}`);
    this.notice.hidden = false;
  }

  /** Whether a link to the view opens it: a notebook's output cell has no address. */
  get linkable() {
    return this.host?.location.protocol !== "about:";
  }

  /** The whole link. */
  get link() {
    const base = this.host?.location.href ?? "";
    return `${base.replace(/#.*$/s, "")}${this.hash()}`;
  }

  /** Copy the link; where the clipboard is forbidden, show it to be copied by hand. @returns {Promise<string>} what happened */
  async copy() {
    if (!this.host) return "This page cannot see its address";
    try {
      await navigator.clipboard.writeText(this.link);
      return "Link copied";
    } catch {
      showLink(this.link);
      return "";
    }
  }
}

/** The window whose address is that of the page. @param {boolean} inTensorBoard whether a page of the same origin is around the frame */
function hostWindow(inTensorBoard) {
  if (!inTensorBoard) return window;
  try {
    return window.parent.location.href ? window.parent : null;
  } catch {
    return null; // another origin
  }
}

/** @param {string} link */
function showLink(link) {
  const text = h("input", { type: "text", readonly: true, value: link, "aria-label": "Link" });
  const dialog = h("dialog", { class: "keys", "aria-label": "Link to this view", onclose: () => dialog.remove() },
    h("h2", {}, "Link to this view"), text, h("form", { method: "dialog" }, h("button", {}, "Close")));
  document.body.append(dialog);
  dialog.showModal();
  text.select();
}
