// The page of the lab: what a person sets goes to the worker, what the worker tells is drawn. All computing is in worker.js.

import { addEpoch, draw, redraw } from "./curves.js";
import { ask, ended, opened, told } from "./engine.js";
import { showExplanation } from "./explaining.js";
import { showFigures } from "./figures.js";
import { $, complain, focus, gpuFailed, lab, percent, run, runs, say, settled, state, withoutGpu } from "./page.js";
import { showKernels, showMaps, showPicture } from "./seeing.js";
import { fill } from "./settings.js";
import { awaitImages, load } from "./source.js";
import { begin, setPlaying } from "./training.js";

ended.then = (why) => complain("worker", `The part that computes stopped: ${why}. Reload the page.`);

/** When something happened first, for who measures. */
const mark = (name) => performance.getEntriesByName(name).length || performance.mark(name);

Object.assign(told, {
  place({ early, device = lab.device, why }) {
    Object.assign(lab, { early, device });
    if (why) gpuFailed(why);
    $("device").textContent = early ? `${lab.device}; the CPU until its shaders are compiled` : lab.device;
  },
  steps({ key, first, rows, lr, each }) {
    const run = runs.get(key);
    if (!run) return;
    if (rows.length) mark("first step");
    if (rows.length && !lab.early) mark("first step on the device");
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
    complain("training", error);
  },
  reading({ done, total }) {
    $("source").textContent = `Reading: ${done} of ${total} files`;
  },
});

/** The network in focus, as it is now, and the chosen image in full: what `radiograd explain` shows. */
$("explain-image").addEventListener("click", async ({ currentTarget: button }) => {
  const [of, index, { data, own }] = [run(), state.image, lab];
  // Not disabled, so that the keyboard does not lose its place.
  if (button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  button.textContent = "Explaining";
  const { classes } = data.summary;
  // Nobody has said what is to be seen on a person's own image.
  const [label, image] = own ? [null, own.name] : [data.val.labels[index], data.val.names[index]];
  try {
    const { json, step } = await ask("explain", { key: of.key, split: "val", index, bytes: own?.bytes, asked: { name: image, label, classes } });
    // Meanwhile everything may have started over.
    if (runs.get(of.key) === of) await showExplanation(json, { key: of.key, name: of.name, step, image });
    settled("explanation");
  } catch (e) {
    complain("explanation", e.message);
  }
  button.textContent = "Explain this image";
  button.removeAttribute("aria-busy");
});

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
  const { device, why } = await opened;
  $("device").textContent = lab.device = device;
  if (why) withoutGpu(why);
  const wasOwn = state.data === "own";
  if (wasOwn) awaitImages();
  await load();
  await begin();
  if (wasOwn) complain("images", "This link is about images of somebody's own: drop them here again. Until then these are phantom images.", "Other images.");
} catch (e) {
  complain("page", e.message);
}
