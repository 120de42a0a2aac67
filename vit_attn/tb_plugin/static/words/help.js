// @ts-check
/** A "?" beside a term: it opens two lines and the paper. Escape, or a click elsewhere, closes it. */

import { h, setAttribute, setText } from "../drawing/dom.js";
import { openGuide, paperLinks } from "./guide.js";
import { TERMS } from "./terms.js";

const EDGE = 8;

/** @param {string} key of the term @param {string} [text] on the button, where "?" alone does not say which term */
export function helpButton(key, text = "") {
  const button = h("button", { type: "button", class: text ? "help named" : "help", "aria-haspopup": "dialog", onclick: () => explain(button) });
  setTerm(button, key, text);
  return button;
}

/** Have a "?" explain a term from now on. @param {HTMLButtonElement} button @param {string} key @param {string} [text] */
export function setTerm(button, key, text = "") {
  button.dataset.term = key;
  setText(button, text ? `${text} ?` : "?");
  setAttribute(button, "aria-label", text ? `${text} ? What is ${TERMS[key].name}` : `What is ${TERMS[key].name}?`);
}

/** @type {HTMLElement | null} */
let bubble = null;

/** Show a button's term beside it, and give it the focus; closing gives it back. @param {HTMLButtonElement} button */
function explain(button) {
  const key = button.dataset.term ?? "";
  const { name, text, papers = [] } = TERMS[key];
  bubble?.remove();
  const shown = h("div", { class: "bubble", popover: "auto", role: "dialog", tabindex: -1, "aria-label": name },
    h("b", {}, name), h("p", {}, text),
    h("p", { class: "sources" }, ...paperLinks(papers), h("button", { type: "button", onclick: () => openGuide(key) }, "All terms")));
  bubble = shown;
  (button.closest("dialog") ?? document.body).append(shown);
  shown.addEventListener("toggle", (event) => /** @type {ToggleEvent} */ (event).newState === "closed" && shown.remove());
  shown.addEventListener("keydown", (event) => event.stopPropagation()); // no key of the page while it is read
  shown.showPopover();
  place(shown, button.getBoundingClientRect());
  shown.focus();
}

/** Below the button, or above it where there is no room. @param {HTMLElement} shown @param {DOMRect} at */
function place(shown, at) {
  const { width, height } = shown.getBoundingClientRect();
  const [room, below] = [document.documentElement.clientWidth, at.bottom + 6];
  shown.style.left = `${Math.max(EDGE, Math.min(at.left, room - width - EDGE))}px`;
  shown.style.top = `${below + height > window.innerHeight ? Math.max(EDGE, at.top - height - 6) : below}px`;
}
