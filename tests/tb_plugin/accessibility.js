// What a page must have for everyone, as lists of the elements that lack it; test_first_view.py evaluates it in the page.
() => {
  const seen = (element) => element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;
  const all = (names) => [...document.querySelectorAll(names)].filter(seen);
  const name = (element) => (element.getAttribute("aria-label") ?? element.labels?.[0]?.textContent ?? element.textContent).trim();
  const text = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  const rgb = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const contrast = (element) => {
    const [a, b] = [light(rgb(getComputedStyle(element).color)), light(behind(element))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const target = (element) => (element.closest("label") ?? element).getBoundingClientRect();
  const controls = all("button, select, input, a, summary, [tabindex='0']");
  const texts = all("body *").filter((element) => text(element) && !element.closest("option, optgroup"));
  const say = (element) => element.outerHTML.slice(0, 120);
  return {
    headings: document.querySelectorAll("h1").length,
    unnamed: controls.filter((element) => !name(element)).map(say),
    small: controls.filter((element) => target(element).width < 24 || target(element).height < 24).map(say),
    tiny: texts.filter((element) => parseFloat(getComputedStyle(element).fontSize) < 12).map(say),
    faint: texts.filter((element) => !element.closest(":disabled") && contrast(element) < 4.5).map((element) => `${contrast(element).toFixed(2)} ${say(element)}`),
  };
}
