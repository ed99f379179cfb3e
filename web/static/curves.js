// Curves, the table of the networks that race, and that of the epochs.

import { colour, curves } from "./draw.js";
import { showFigures } from "./figures.js";
import { $, count, focus, lab, percent, runs, state } from "./page.js";
import { showGalleryMarks, showLayers } from "./seeing.js";
import { remember } from "./settings.js";
import { look } from "./training.js";

/** How the lines of networks that race are broken, so that they differ by more than their colour. */
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];

/** Milliseconds between two drawings of the curves. */
const FRAME = 120;

let due = false;
let drawn = 0;

/** Draws soon; often asked, seldom done. */
export function redraw() {
  if (due) return;
  due = true;
  setTimeout(
    () =>
      requestAnimationFrame(() => {
        due = false;
        drawn = performance.now();
        draw();
      }),
    Math.max(0, drawn + FRAME - performance.now()),
  );
}

/** Draws what is known of all networks. */
export function draw() {
  const all = [...runs.values()];
  if (all.length === 0) return;
  const xMost = Math.max(...all.map((r) => r.network.steps_an_epoch)) * state.epochs;
  const lossSeries = all.flatMap((r, i) => [
    { colour: colour(`--${r.key}`), points: r.points, faint: true },
    { colour: colour(`--${r.key}`), points: r.smooth, dash: DASHES[i] },
  ]);
  curves($("loss"), lossSeries, { xMost });
  const accuracy = all.map((r, i) => ({
    colour: colour(`--${r.key}`),
    dash: DASHES[i],
    points: r.epochs.map((e) => [e.step, e.val_accuracy]),
    dots: true,
  }));
  curves($("accuracy"), accuracy, { xMost, yMost: 1, percent: true });
  const steps = Math.max(...all.map((r) => r.points.length));
  $("progress").max = xMost;
  $("progress").value = steps;
  const epoch = Math.min(state.epochs, Math.floor(steps / all[0].network.steps_an_epoch) + 1);
  $("where").textContent = `Epoch ${epoch} of ${state.epochs}, step ${count(steps)} of ${count(xMost)}`;
  const best = all.filter((r) => r.epochs.length).map((r) => `${r.name} ${percent(r.epochs.at(-1).val_accuracy)}`);
  $("loss").setAttribute(
    "aria-label",
    `Loss over steps: ${all.map((r) => `${r.name} ${r.smooth.at(-1)?.[1].toFixed(3) ?? "not begun"}`).join(", ")}`,
  );
  $("accuracy").setAttribute("aria-label", `Validation accuracy: ${best.join(", ") || "no epoch is done"}`);
  for (const r of all) {
    const row = $(`race-${r.key}`);
    if (!row) continue;
    const cells = [
      count(r.points.length),
      r.smooth.at(-1)?.[1].toFixed(3) ?? "",
      r.epochs.length ? percent(r.epochs.at(-1).val_accuracy) : "",
      r.each ? (1000 * r.each).toFixed(r.each < 0.02 ? 1 : 0) : "",
    ];
    cells.forEach((text, i) => {
      const cell = row.cells[i + 2];
      if (cell.textContent !== text) cell.textContent = text;
    });
  }
}

export function showRace() {
  const rows = [...runs.values()].map((r, i) => {
    const row = document.createElement("tr");
    row.id = `race-${r.key}`;
    const head = document.createElement("th");
    head.scope = "row";
    const label = document.createElement("label");
    const radio = document.createElement("input");
    Object.assign(radio, { type: "radio", name: "focus", value: r.key, checked: r.key === focus() });
    radio.addEventListener("change", () => {
      state.focus = r.key;
      lab.picture = null;
      remember();
      showLayers();
      showFigures();
      showGalleryMarks();
      look();
    });
    const swatch = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
    swatch.setAttribute("class", "swatch");
    swatch.setAttribute("aria-hidden", "true");
    line.setAttribute("d", "M0 2H28");
    line.setAttribute("stroke-dasharray", DASHES[i].join(" "));
    line.style.stroke = `var(--${r.key})`;
    swatch.append(line);
    label.append(radio, swatch, r.name);
    head.append(label);
    row.append(head);
    for (const text of [count(r.network.summary.parameters), "", "", "", ""]) {
      const cell = document.createElement("td");
      cell.textContent = text;
      row.append(cell);
    }
    return row;
  });
  $("race").tBodies[0].replaceChildren(...rows);
}

export function addEpoch(r, row) {
  const line = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = r.name;
  line.append(head);
  const cells = [row.epoch, row.train_loss.toFixed(4), percent(row.train_accuracy), row.val_loss.toFixed(4), percent(row.val_accuracy), row.learning_rate.toPrecision(3)];
  for (const text of cells) {
    const cell = document.createElement("td");
    cell.textContent = text;
    line.append(cell);
  }
  $("epochs").tBodies[0].append(line);
}
