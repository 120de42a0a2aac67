// @ts-check
/** The page's arrangement: on a narrow page the controls fold, and the map comes before the images. */

/** Width in pixels up to which a page is narrow, as in css/narrow.css. */
const NARROW = "(max-width: 900px)";

/** @param {import("../page.js").Page} page */
export function followWidth(page) {
  const narrow = window.matchMedia(NARROW);
  const arrange = () => {
    const { controls, stage, strip, timeline } = page;
    if (controls?.fold) controls.fold.open = !narrow.matches;
    if (strip) narrow.matches ? stage?.element.after(strip.element) : timeline?.element.before(strip.element);
  };
  narrow.addEventListener("change", arrange);
  arrange();
}

/**
 * Have keys work without a click: the page takes the focus when it comes into view, as TensorBoard changes tabs, unless
 * the user is writing elsewhere.
 * @param {HTMLElement} root
 * @param {HTMLElement} main
 */
export function takeFocus(root, main) {
  const seen = new IntersectionObserver((entries) => {
    if (!entries[entries.length - 1].isIntersecting || document.hasFocus() || isTyping()) return;
    window.focus();
    if (!focused(document)) main.focus({ preventScroll: true });
  });
  seen.observe(root);
}

/** @param {Document} document @returns {Element | null} what has the focus, if it is not the whole page */
function focused(document) {
  return document.activeElement === document.body ? null : document.activeElement;
}

/** Whether the user writes into a field of the page around the frame. */
function isTyping() {
  try {
    return window.parent !== window && Boolean(focused(window.parent.document)?.closest("input, textarea, select"));
  } catch {
    return true; // another origin
  }
}
