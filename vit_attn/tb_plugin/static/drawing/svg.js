// @ts-check
/** Drawings of lines and bars with axes, as SVG. */

import { setAttribute } from "./dom.js";

/** @param {string} tag @param {Record<string, any>} [attributes] @param {(Node | string)[]} children @returns {SVGElement} */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value);
  element.append(...children);
  return element;
}
