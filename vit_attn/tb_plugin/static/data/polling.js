// @ts-check
/** New runs and steps, while the page is open. */

const POLL_SECONDS = 10;

/** Ask for new runs and steps from now on, while the page is seen. @param {import("../page.js").Page} page */
export function keepPolling(page) {
  setInterval(() => document.hidden || poll(page), 1000 * POLL_SECONDS);
}

/** Ask for new runs and steps; the view does not change unless new steps are followed. @param {import("../page.js").Page} page */
async function poll(page) {
  try {
    const runs = await page.source.runs();
    page.runs = runs;
    const [run, back] = [page.stepsOf, page.unreachable];
    page.unreachable = false;
    if (!run) {
      if (back) page.report("");
      return runs.length ? page.sync() : page.draw();
    }
    const gone = !runs.some(({ name }) => name === run);
    const steps = gone ? page.steps : await page.source.steps(run);
    if (run !== page.stepsOf) return; // another run was chosen meanwhile
    page.steps = steps;
    if (gone) page.report(`Run ${run} is no longer in the log directory; what is shown was loaded before.`);
    else if (back) await page.sync();
    const last = page.steps[page.steps.length - 1];
    if (page.state.follow && !gone && last > page.state.step) page.store.set({ step: last });
    else page.drawAround();
  } catch (error) {
    page.unreachable = true;
    page.report(error instanceof Error ? error.message : String(error), page.parts?.classList.contains("outdated"));
  }
}
