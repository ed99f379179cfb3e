// The page of the lab: what a person sets goes to the worker, what the worker tells is drawn. All computing is in worker.js.

import { addEpoch, draw, redraw } from "./curves.js";
import { ended, opened, told } from "./engine.js";
import { showFigures } from "./figures.js";
import { $, complain, focus, lab, percent, runs, say, state, stayOnCpu, withoutGpu } from "./page.js";
import { showKernels, showMaps, showPicture } from "./seeing.js";
import { fill } from "./settings.js";
import { load } from "./source.js";
import { begin, setPlaying } from "./training.js";

ended.then = (why) => complain(`The part that computes stopped: ${why}. Reload the page.`);

Object.assign(told, {
  steps({ key, first, rows, lr, each }) {
    const run = runs.get(key);
    if (!run) return;
    if (rows.length && !performance.getEntriesByName("first step").length) performance.mark("first step");
    for (let i = 0; i * 4 < rows.length; i++) {
      const loss = rows[4 * i];
      const last = run.smooth.at(-1)?.[1] ?? loss;
      run.points.push([first + i + 1, loss]);
      run.smooth.push([first + i + 1, 0.92 * last + 0.08 * loss]);
    }
    Object.assign(run, { lr, each });
    redraw();
  },
  epoch({ key, step, row, metrics, probabilities, done }) {
    const run = runs.get(key);
    if (!run) return;
    run.epochs.push({ ...row, step });
    Object.assign(run, { metrics, probabilities, done });
    say(`${run.name}: epoch ${row.epoch} of ${state.epochs}, validation accuracy ${percent(row.val_accuracy)}`);
    addEpoch(run, row);
    redraw();
    if (key === focus()) showFigures();
  },
  picture(message) {
    lab.picture = message;
    showPicture();
  },
  done() {
    setPlaying(false);
    say("Training is done.");
  },
  failed({ error }) {
    setPlaying(false);
    complain(error);
  },
  reading({ done, total }) {
    $("source").textContent = `Reading: ${done} of ${total} files`;
  },
});

/**
 * The place where the explain page's own view goes: `explain.js` gives `radiogradExplain(root, data)`, and `data` is an Explanation
 * as JSON from the crate.
 */
export function explain(explanation) {
  const root = $("explain");
  root.hidden = !explanation || typeof globalThis.radiogradExplain !== "function";
  if (!root.hidden) globalThis.radiogradExplain(root, explanation);
}

const redrawAll = () => {
  draw();
  showMaps();
  showKernels();
};
let lastWidth = $("loss").clientWidth;
new ResizeObserver(() => {
  if ($("loss").clientWidth === lastWidth) return;
  lastWidth = $("loss").clientWidth;
  requestAnimationFrame(redrawAll);
}).observe($("loss").parentElement);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);

// On a phone what happens comes first.
const narrow = matchMedia("(max-width: 900px)");
const unfold = () => ($("more").open = !narrow.matches);
narrow.addEventListener("change", unfold);
unfold();

fill();
try {
  const { device, cpu, why } = await opened;
  $("device").textContent = device;
  stayOnCpu(cpu);
  if (why) withoutGpu(why);
  const wasOwn = state.data === "own";
  await load();
  await begin();
  if (wasOwn) complain("This link is about images of somebody's own: drop them here again. Until then these are phantom images.", "Other images.");
} catch (e) {
  complain(e.message);
}
