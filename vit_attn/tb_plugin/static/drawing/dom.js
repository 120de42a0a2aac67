// @ts-check
/** Elements in one line, their text always set as text. */

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, any>} [attributes] `on…` are listeners; true and false set and leave out
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else setAttribute(element, name, value);
  }
  element.append(...children);
  return element;
}

/** @param {Element} element @param {string} name @param {any} value */
export function setAttribute(element, name, value) {
  const text = value === true && !name.startsWith("aria-") ? "" : String(value);
  if (value === undefined || value === null || (value === false && !name.startsWith("aria-"))) element.removeAttribute(name);
  else if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/** Set an element's text only where it differs, so that nothing is announced or laid out twice. @param {Element} element @param {string} text */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * As many children as items, made once and updated in place, so that focus stays where it is.
 * @template Item
 * @template {HTMLElement} Child
 * @param {HTMLElement} parent
 * @param {Item[]} items
 * @param {(i: number) => Child} make
 * @param {(child: Child, item: Item, i: number) => void} update
 */
export function syncChildren(parent, items, make, update) {
  while (parent.children.length > items.length) parent.lastElementChild?.remove();
  while (parent.children.length < items.length) parent.append(make(parent.children.length));
  items.forEach((item, i) => update(/** @type {Child} */ (parent.children[i]), item, i));
}

/**
 * A row of choices of which one is chosen: arrow keys move between them.
 * @param {string} label
 * @param {[string, string][]} choices value and text
 * @param {(value: string) => void} choose
 */
export function segmented(label, choices, choose) {
  const group = h("div", { class: "segmented", role: "radiogroup", "aria-label": label });
  const buttons = () => /** @type {HTMLButtonElement[]} */ ([...group.children]);
  group.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const enabled = buttons().filter((button) => !button.disabled);
    const next = enabled[(enabled.indexOf(/** @type {HTMLButtonElement} */ (document.activeElement)) + step + enabled.length) % enabled.length];
    next.focus();
    next.click();
  });
  /** Change the choices. @param {[string, string][]} offered */
  const offer = (offered) =>
    syncChildren(group, offered, () => {
      const button = h("button", { type: "button", role: "radio", onclick: () => choose(button.dataset.value ?? "") });
      return button;
    }, (button, [value, text]) => {
      button.dataset.value = value;
      setText(button, text);
    });
  /** @param {string} value @param {(value: string) => boolean} [possible] */
  const update = (value, possible = () => true) => {
    for (const button of buttons()) {
      const chosen = button.dataset.value === value;
      setAttribute(button, "aria-checked", chosen);
      button.tabIndex = chosen ? 0 : -1;
      button.disabled = !possible(button.dataset.value ?? "");
    }
  };
  offer(choices);
  return { element: group, offer, update };
}

/** @typedef {[string, [string, string][]]} Group its name, and value and text of each choice */

/** More choices than this are a menu instead of a row of buttons. */
const MOST_BUTTONS = 4;

/**
 * One of several choices in groups: a row of buttons, or a menu where they are many.
 * @param {string} label
 * @param {(value: string) => void} choose
 */
export function chooser(label, choose) {
  const buttons = segmented(label, [], choose);
  const menu = h("select", { "aria-label": label, onchange: () => choose(menu.value) });
  const element = h("div", { class: "chooser" }, buttons.element, menu);
  /** @param {Group[]} groups @param {string} chosen @param {(value: string) => boolean} possible */
  const update = (groups, chosen, possible) => {
    const all = groups.flatMap(([, choices]) => choices);
    const many = all.length > MOST_BUTTONS;
    buttons.element.hidden = many;
    menu.hidden = !many;
    buttons.offer(many ? [] : all);
    buttons.update(chosen, possible);
    if (many) fillGroups(menu, groups, chosen, possible);
    setAttribute(element, "data-value", chosen);
  };
  return { element, update };
}

/** @param {HTMLSelectElement} select @param {Group[]} groups @param {string} chosen @param {(value: string) => boolean} possible */
function fillGroups(select, groups, chosen, possible) {
  syncChildren(select, groups, () => h("optgroup"), (group, [label, choices]) => {
    setAttribute(group, "label", label);
    fillOptions(group, choices.map(([value, text]) => ({ value, text })));
    for (const option of /** @type {HTMLCollectionOf<HTMLOptionElement>} */ (group.children)) option.disabled = !possible(option.value);
  });
  select.value = chosen;
}

/** @typedef {{value: string, text: string, title?: string}} Option */

/** @param {HTMLElement} parent @param {Option[]} options */
function fillOptions(parent, options) {
  syncChildren(parent, options, () => h("option"), (option, { value, text, title }) => {
    option.value = value;
    setText(option, text);
    setAttribute(option, "title", title);
  });
}

/** @param {HTMLSelectElement} select @param {Option[]} options @param {string} chosen */
export function fillSelect(select, options, chosen) {
  fillOptions(select, options);
  select.value = chosen;
}

/** @param {string} label @param {(checked: boolean) => void} choose @param {string} [hint] */
export function checkbox(label, choose, hint) {
  const input = h("input", { type: "checkbox", onchange: () => choose(input.checked) });
  return { element: h("label", { class: "check", title: hint }, input, h("span", {}, label)), input };
}
