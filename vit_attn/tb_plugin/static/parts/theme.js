// @ts-check
/** Light or dark: the user's choice, else TensorBoard's own, else the system's. */

/** @param {import("../page.js").Page} page */
export function followTheme(page) {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const host = hostBody();
  const apply = () => {
    const chosen = page.state.theme;
    const dark = chosen === "auto" ? (host ? host.classList.contains("dark-mode") : system.matches) : chosen === "dark";
    document.documentElement.dataset.theme = dark ? "dark" : "light";
  };
  if (host) new MutationObserver(apply).observe(host, { attributes: true, attributeFilter: ["class"] });
  system.addEventListener("change", apply);
  page.store.listeners.push((changed) => changed.has("theme") && apply());
  apply();
}

/** TensorBoard's page around the frame, where there is one: it marks its dark mode by a class. */
function hostBody() {
  try {
    return window.parent === window ? null : window.parent.document.body;
  } catch {
    return null; // another origin
  }
}
