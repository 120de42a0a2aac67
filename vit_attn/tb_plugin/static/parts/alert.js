// @ts-check
/** What went wrong, with a button to try again; and what changed besides what was clicked. */

import { h, setText } from "../drawing/dom.js";

const MESSAGE_MS = 6000;

export class Alert {
  /** @param {() => void} retry */
  constructor(retry) {
    this.text = h("span");
    this.element = h("div", { class: "alert", role: "alert", hidden: true }, this.text, h("button", { type: "button", onclick: retry }, "Try again"));
  }

  get shown() {
    return !this.element.hidden;
  }

  /** @param {string} problem "" for none */
  say(problem) {
    setText(this.text, problem);
    this.element.hidden = !problem;
  }
}

/** A line that is shown for some seconds, and read aloud. */
export class Toast {
  constructor() {
    this.element = h("p", { class: "toast", role: "status" });
    this.timer = 0;
  }

  /** @param {string} text */
  say(text) {
    clearTimeout(this.timer);
    setText(this.element, text);
    this.timer = setTimeout(() => setText(this.element, ""), MESSAGE_MS);
  }
}
