// What the network in focus makes of the chosen image.

import { bars, sheet, xray } from "./draw.js";
import { ask } from "./engine.js";
import { compareExplanation } from "./explaining.js";
import { $, count, focus, lab, percent, run, say, state } from "./page.js";
import { remember } from "./settings.js";
import { look } from "./training.js";

/** Images in the gallery. */
const GALLERY = 24;
let gallery = [];

/** Has the network in focus look at a validation image. */
function choose(index) {
  lab.own = null;
  state.image = index;
  remember();
  return look();
}

/** Some validation images of every class, spread over all. */
function some(from = 0) {
  const { labels } = lab.data.val;
  const step = Math.max(1, Math.floor(labels.length / GALLERY));
  const spread = Array.from({ length: Math.min(GALLERY, labels.length) }, (_, i) => (from + i * step) % labels.length);
  return [...new Set(spread)];
}

let offset = 0;

export async function fillGallery(indices = some()) {
  if (!indices.includes(state.image)) indices[0] = state.image;
  gallery = indices;
  const { bytes } = await ask("images", { split: "val", indices });
  const n = state.size * state.size;
  const items = indices.map((index, i) => {
    const label = document.createElement("label");
    const radio = document.createElement("input");
    const name = lab.data.summary.classes[lab.data.val.labels[index]];
    Object.assign(radio, { type: "radio", name: "image", value: index, checked: index === state.image && !lab.own });
    radio.setAttribute("aria-label", `Image ${index}, ${name}`);
    label.title = `${lab.data.val.names[index]}: ${name}`;
    radio.addEventListener("change", () => choose(index));
    const canvas = document.createElement("canvas");
    xray(canvas, bytes.subarray(i * n, (i + 1) * n), state.size, state.size);
    label.append(canvas, radio);
    return label;
  });
  $("gallery").replaceChildren(...items);
  showGalleryMarks();
}

/** Whether the network in focus decides an image of the gallery wrongly. */
function isWrong(index) {
  const p = run()?.probabilities;
  if (!p) return false;
  const k = lab.data.summary.classes.length;
  const row = p.slice(index * k, (index + 1) * k);
  return row.indexOf(Math.max(...row)) !== lab.data.val.labels[index];
}

export function showGalleryMarks() {
  [...$("gallery").children].forEach((label, i) => {
    const wrong = isWrong(gallery[i]);
    const mark = label.querySelector(".miss");
    if (wrong && !mark) {
      const dot = document.createElement("span");
      dot.className = "miss";
      label.append(dot);
    } else if (!wrong) mark?.remove();
    const name = lab.data.summary.classes[lab.data.val.labels[gallery[i]]];
    label.querySelector("input").setAttribute("aria-label", `Image ${gallery[i]}, ${name}${wrong ? ", decided wrongly" : ""}`);
  });
}

$("others").addEventListener("click", () => {
  offset += 1;
  const indices = some(offset);
  choose(indices[0]);
  fillGallery(indices);
});
$("wrong").addEventListener("click", () => {
  const all = lab.data.val.labels.map((_, i) => i).filter(isWrong).slice(0, GALLERY);
  if (all.length === 0) return say("There are no mistakes.");
  choose(all[0]);
  fillGallery(all);
});

export function showLayers() {
  const { layers } = run().network.summary;
  const items = layers.map((layer) => {
    const label = document.createElement("label");
    const radio = document.createElement("input");
    Object.assign(radio, { type: "radio", name: "layer", value: layer.name });
    radio.addEventListener("change", () => {
      state.layer = layer.name;
      remember();
      showMaps();
    });
    const name = document.createElement("span");
    name.textContent = layer.layer;
    const detail = document.createElement("small");
    detail.textContent = layer.output.join("\u2009\u00d7\u2009");
    const weights = document.createElement("small");
    weights.textContent = layer.parameters ? `${count(layer.parameters)} weights` : "no weights";
    label.append(radio, name, detail, weights);
    return label;
  });
  $("layers").replaceChildren(...items);
  if (!layers.some((l) => l.name === state.layer)) {
    const relu = layers.find((l, i) => i > 0 && l.output.length === 3);
    state.layer = (relu ?? layers[0]).name;
  }
  for (const input of $("layers").querySelectorAll("input")) input.checked = input.value === state.layer;
}

export function showPicture() {
  if (!lab.picture || lab.picture.key !== focus()) return;
  const { parts, bytes, seen } = lab.picture;
  const { classes } = lab.data.summary;
  // Of a person's own image nobody has said what is on it.
  if (seen.own !== (lab.own !== null)) return;
  const name = lab.own?.name ?? lab.data.val.names[seen.index];
  const truth = lab.own ? undefined : classes[lab.data.val.labels[seen.index]];
  xray($("xray"), bytes, state.size, state.size);
  const decided = parts.probabilities.indexOf(Math.max(...parts.probabilities));
  $("xray").setAttribute("aria-label", truth ? `Validation image ${seen.index}, ${truth}` : name);
  const verdict = document.createElement("p");
  verdict.className = "verdict";
  const says = `${lab.picture.step === 0 ? "untrained, it" : "it"} says ${classes[decided]}.`;
  verdict.textContent = truth ? `It is ${truth}; ${says}` : says[0].toUpperCase() + says.slice(1);
  const rows = parts.probabilities.flatMap((p, i) => {
    const name = document.createElement("span");
    name.textContent = classes[i];
    const value = document.createElement("span");
    value.textContent = percent(p);
    const track = document.createElement("span");
    track.className = "track";
    const fillBar = document.createElement("i");
    fillBar.style.width = `${100 * p}%`;
    track.append(fillBar);
    return [name, value, track];
  });
  const list = document.createElement("div");
  list.append(...rows);
  $("answer").replaceChildren(verdict, list);
  compareExplanation({ key: lab.picture.key, step: lab.picture.step, image: name });
  $("seeing").textContent = `${run().name} at step ${count(lab.picture.step)} looks at ${name}.`;
  // Each in a turn of its own: the page stays free between them.
  setTimeout(showMaps);
  setTimeout(showKernels);
}

const values = (part) => {
  const n = part.shape.reduce((a, b) => a * b, 1);
  return lab.picture.values.subarray(part.first, part.first + n);
};

export function showMaps() {
  if (!lab.picture || lab.picture.key !== focus()) return;
  const { layers } = run().network.summary;
  const at = layers.findIndex((l) => l.name === state.layer);
  const [layer, part] = [layers[at], lab.picture.parts.layers[at + 1]];
  if (!layer || !part) return;
  const numbers = values(part);
  const field = layer.field ? `each number depends on ${layer.field.size.join("\u2009\u00d7\u2009")} pixels of the image` : "each number depends on the whole image";
  if (part.shape.length === 3) {
    const dead = deadChannels(numbers, part.shape);
    $("maps-title").textContent = `${layer.layer}: ${part.shape[0]} feature maps`;
    const { shown } = sheet($("maps"), numbers, part.shape, { cell: cellFor(part.shape) });
    const rest = part.shape[0] > shown ? `, the first ${shown} are shown` : "";
    $("maps-note").textContent = `${part.shape[1]}\u2009\u00d7\u2009${part.shape[2]} each, ${field}${dead ? `; ${dead} of them are zero here` : ""}${rest}.`;
  } else {
    $("maps-title").textContent = `${layer.layer}: ${part.shape[0]} numbers`;
    $("maps-note").textContent = `${field[0].toUpperCase()}${field.slice(1)}.`;
    bars($("maps"), [...numbers]);
  }
}

const cellFor = ([count_, h]) => Math.max(32, Math.min(72, count_ > 64 ? 44 : 58, 3 * h));

function deadChannels(numbers, [c, h, w]) {
  let dead = 0;
  for (let i = 0; i < c; i++) if (numbers.subarray(i * h * w, (i + 1) * h * w).every((v) => v === 0)) dead += 1;
  return dead;
}

export function showKernels() {
  if (!lab.picture || lab.picture.key !== focus()) return;
  const [first] = lab.picture.parts.kernels;
  $("kernels-box").hidden = !first;
  if (!first) return;
  const [out, inputs, h, w] = first.shape;
  // Of a colour image's filters the first channel.
  const all = values(first);
  const shown = inputs === 1 ? all : Float32Array.from({ length: out * h * w }, (_, i) => all[Math.floor(i / (h * w)) * inputs * h * w + (i % (h * w))]);
  sheet($("kernels"), shown, [out, h, w], { signed: true, cell: 34, gap: 5 });
}
