// @ts-check
/** Light or dark: the user's choice, else that of TensorBoard or of the notebook around the frame, else the system's. */

/** How a notebook or a documentation site marks its body. */
const MARKS = ["class", "data-jp-theme-light", "data-vscode-theme-kind", "data-md-color-scheme"];

/** @param {import("../page.js").Page} page */
export function followTheme(page) {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const host = hostBody();
  const apply = () => {
    const chosen = page.state.theme;
    const dark = chosen === "auto" ? (host && darkAround(host, page.source.live)) ?? system.matches : chosen === "dark";
    document.documentElement.dataset.theme = dark ? "dark" : "light";
  };
  if (host) new MutationObserver(apply).observe(host, { attributes: true, attributeFilter: MARKS });
  system.addEventListener("change", apply);
  page.store.listeners.push((changed) => changed.has("theme") && apply());
  apply();
}

/** Whether the page around the frame is dark; null if it does not say. @param {HTMLElement} body @param {boolean} inTensorBoard which marks its dark mode by a class */
function darkAround(body, inTensorBoard) {
  const { jpThemeLight, vscodeThemeKind, mdColorScheme } = body.dataset;
  if (jpThemeLight) return jpThemeLight === "false";
  if (vscodeThemeKind) return !vscodeThemeKind.endsWith("light");
  if (mdColorScheme) return mdColorScheme === "slate";
  return inTensorBoard ? body.classList.contains("dark-mode") : null;
}

/** The page around the frame, where there is one. */
function hostBody() {
  try {
    return window.parent === window ? null : window.parent.document.body;
  } catch {
    return null; // another origin
  }
}
