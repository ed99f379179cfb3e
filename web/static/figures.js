// Where it errs: the confusion matrix, and figures of the last epoch.

import { $, cellOf, count, lab, percent, run } from "./page.js";
import { showGalleryMarks } from "./seeing.js";

export function showFigures() {
  const { classes } = lab.data.summary;
  const metrics = run()?.metrics;
  $("wrong").disabled = !metrics;
  const head = document.createElement("tr");
  head.append(cellOf("td", ""), ...classes.map((c) => cellOf("th", `says ${c}`, "col")));
  const rows = classes.map((c, i) => {
    const row = document.createElement("tr");
    row.append(cellOf("th", `is ${c}`, "row"));
    const line = metrics?.confusion[i];
    const sum = line?.reduce((a, b) => a + b, 0) || 1;
    classes.forEach((_, j) => {
      const cell = cellOf("td", line ? count(line[j]) : "");
      if (line) {
        const share = line[j] / sum;
        cell.style.background = `color-mix(in srgb, var(${i === j ? "--plus" : "--minus"}) ${Math.round(28 * share)}%, transparent)`;
      }
      row.append(cell);
    });
    return row;
  });
  $("confusion").tBodies[0].replaceChildren(head, ...rows);
  const figures = metrics
    ? [
        ["Accuracy", percent(metrics.accuracy)],
        ["Macro F1", metrics.macro_f1.toFixed(3)],
        ["Log loss", metrics.log_loss.toFixed(3)],
        ...(metrics.binary?.roc_auc != null ? [["ROC-AUC", metrics.binary.roc_auc.toFixed(3)]] : []),
        ...metrics.classes.map((m, i) => [`Recall of ${classes[i]}`, percent(m.recall)]),
      ]
    : [["Accuracy", "after the first epoch"]];
  $("figures").replaceChildren(
    ...figures.map(([name, value]) => {
      const box = document.createElement("div");
      const dt = document.createElement("dt");
      const dd = document.createElement("dd");
      dt.textContent = name;
      dd.textContent = value;
      box.append(dt, dd);
      return box;
    }),
  );
  showGalleryMarks();
}
