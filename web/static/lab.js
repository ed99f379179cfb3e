// The page of the lab: what a person sets goes to the worker, what the worker tells is drawn. All computing is in worker.js.

import { closeExplanation, compareExplanation, showExplanation } from "./explaining.js";
import { bars, colour, curves, sheet, xray } from "./draw.js";
import { format, networks, parse } from "./state.js";

const $ = (id) => document.getElementById(id);
const RATES = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1];
/** Milliseconds between two drawings of the curves. */
const FRAME = 120;
const GALLERY = 24;

let state = parse(location.hash);
/** What the worker said of the data: { summary, val }. */
let data = null;
/** By key: { key, name, network, points, smooth, rows, each, metrics, probabilities, done }. */
let runs = new Map();
let picture = null;
let playing = false;
let ready = false;
/** Files that were dropped, to be read again where the image size changes. */
let dropped = null;
let gallery = [];

// ---- the worker ------------------------------------------------------------------------------------------------------------------

const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let lastId = 0;

/** Asks the worker for something; what it answers arrives as a promise. */
function ask(call, message = {}, transfer = []) {
  lastId += 1;
  const id = lastId;
  worker.postMessage({ id, call, ...message }, transfer);
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

worker.onmessage = ({ data: message }) => {
  if (message.tell) return told[message.tell](message);
  const { resolve, reject } = waiting.get(message.id);
  waiting.delete(message.id);
  if (message.error === undefined) resolve(message.ok);
  else reject(new Error(message.error));
};
worker.onerror = (e) => complain(`The part that computes stopped: ${e.message || "out of memory"}. Reload the page.`);

const told = {
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
    picture = message;
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
};

// ---- words -----------------------------------------------------------------------------------------------------------------------

const percent = (v) => `${(100 * v).toFixed(1)} %`;
const count = (n) => n.toLocaleString("en").replaceAll(",", "\u202f");

function say(text) {
  $("said").textContent = text;
}

/** Says what went wrong, and what to do; an empty text takes it away. */
function complain(text, title = "That did not work.") {
  const box = $("notice");
  box.hidden = !text;
  box.replaceChildren();
  if (!text) return;
  const strong = document.createElement("strong");
  strong.textContent = title;
  const p = document.createElement("p");
  p.append(strong, ` ${text}`);
  box.append(p);
}

function withoutGpu(why) {
  complain(
    `${why}. Chrome and Edge from version 113, Safari from 26 and Firefox from 141 on Windows have it; on Linux, Chrome may need ` +
      "chrome://flags/#enable-unsafe-webgpu, and the page must come over https or from localhost. Until then the lab trains on the CPU, " +
      "by the same network and the same numbers, more slowly.",
    "No WebGPU here.",
  );
}

// ---- the address -----------------------------------------------------------------------------------------------------------------

let written = location.hash;

function remember() {
  written = format(state);
  history.replaceState(null, "", written);
  showCommand();
}

addEventListener("hashchange", () => {
  if (location.hash !== written) location.reload();
});

// ---- settings --------------------------------------------------------------------------------------------------------------------

const form = $("settings");

function fill() {
  for (const box of form.elements.nets) box.checked = state.nets.includes(box.value);
  form.elements.chain.value = state.chain;
  const rates = [...new Set([...RATES, state.lr, ...state.rates.map((r) => r[1])])].sort((a, b) => a - b);
  form.elements.lr.replaceChildren(...rates.map((r) => new Option(String(r), String(r))));
  form.elements.lr.value = String(state.rates.at(-1)?.[1] ?? state.lr);
  for (const name of ["batch", "epochs", "seed", "size", "device"]) form.elements[name].value = state[name];
}

form.addEventListener("submit", (e) => e.preventDefault());
form.addEventListener("change", async ({ target }) => {
  if (!form.reportValidity()) return;
  const name = target.name;
  if (name === "lr") return setRate(Number(target.value));
  if (name === "nets") state.nets = [...form.elements.nets].filter((b) => b.checked).map((b) => b.value);
  else if (name === "chain") state.chain = target.value.trim();
  else if (name === "device") state.device = target.value;
  else state[name] = Number(target.value);
  if (state.nets.length === 0 && state.chain === "") {
    state.nets = ["cnn2"];
    fill();
  }
  state.play = false;
  state.rates = [];
  remember();
  if (name === "device") return location.reload();
  if (name === "size" || name === "seed") await load();
  await begin();
});

/** Another rate: for the whole run before its first step, from here on after it. */
async function setRate(lr) {
  if ([...runs.values()].every((r) => r.points.length === 0)) {
    Object.assign(state, { lr, rates: [] });
    remember();
    return begin();
  }
  const { step } = await ask("rate", { lr });
  state.rates.push([step, lr]);
  remember();
}

const config = () => ({
  data: data.summary.synthetic ? "phantom" : data.summary.source,
  size: state.size,
  epochs: state.epochs,
  batch: state.batch,
  lr: state.lr,
  seed: state.seed,
});

// ---- data ------------------------------------------------------------------------------------------------------------------------

const options = () => ({ size: state.size, seed: state.seed, ...(state.images ? { images: state.images } : {}) });

/** Draws or reads the images. */
async function load() {
  ready = false;
  setPlaying(false);
  $("source").textContent = dropped ? "Reading the images" : "Drawing phantom images";
  try {
    if (dropped?.npz) data = await ask("npz", { file: dropped.npz, options: options() });
    else if (dropped) data = await ask("folder", { name: dropped.name, files: dropped.files, options: options() });
    else data = await ask("phantom", { options: options() });
    complainUnlessCpu("");
  } catch (e) {
    complain(e.message);
    if (!dropped) throw e;
    dropped = null;
    state.data = "phantom";
    data = await ask("phantom", { options: options() });
  }
  state.data = dropped ? "own" : "phantom";
  $("phantom").hidden = !dropped;
  const { summary } = data;
  const classes = summary.classes.map((c, i) => `${c} ${count(summary.train[i] ?? 0)}`).join(", ");
  const total = (of) => of.reduce((a, b) => a + b, 0);
  $("source").textContent = `${summary.source}. To learn from: ${classes}; to validate: ${count(total(summary.val))}${
    summary.skipped ? `; left out as unreadable: ${count(summary.skipped)}` : ""
  }.`;
  state.image = Math.min(state.image, data.val.labels.length - 1);
  await fillGallery();
}

let onCpu = false;

/** A notice about the device stays where others go. */
function complainUnlessCpu(text) {
  if (!onCpu || text) complain(text);
}

function takeFiles(files, name) {
  const npz = files.find((f) => f.path.toLowerCase().endsWith(".npz"));
  dropped = npz && files.length === 1 ? { npz: npz.file } : { name, files };
  state.play = false;
  state.rates = [];
  state.image = 0;
  return load().then(begin, (e) => complain(e.message));
}

const fromInput = (input) => {
  const files = [...input.files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
  input.value = "";
  if (files.length) takeFiles(files, files[0].path.split("/")[0]);
};
$("folder").addEventListener("change", (e) => fromInput(e.target));
$("npz").addEventListener("change", (e) => fromInput(e.target));
$("phantom").addEventListener("click", () => {
  dropped = null;
  state.image = 0;
  load().then(begin);
});

/** All files below what was dropped, with their paths. */
async function walk(entry, path, into) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    into.push({ path: path + entry.name, file });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return;
    for (const inner of some) await walk(inner, `${path}${entry.name}/`, into);
  }
}

let over = 0;
addEventListener("dragenter", (e) => {
  e.preventDefault();
  over += 1;
  $("drop").hidden = false;
});
addEventListener("dragleave", () => {
  over -= 1;
  if (over <= 0) $("drop").hidden = true;
});
addEventListener("dragover", (e) => e.preventDefault());
addEventListener("drop", async (e) => {
  e.preventDefault();
  over = 0;
  $("drop").hidden = true;
  // The entries are gone once this handler has returned.
  const entries = [...e.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = entries.length ? [] : [...e.dataTransfer.files].map((file) => ({ path: file.name, file }));
  for (const entry of entries) await walk(entry, "", files);
  if (files.length === 1 && /\.(safetensors|pth|pt)$/.test(files[0].path)) return restore(files[0].file);
  if (files.length) await takeFiles(files, (entries[0] ?? files[0].file).name);
});

// ---- training --------------------------------------------------------------------------------------------------------------------

/** Sets the networks up anew. */
async function begin() {
  ready = false;
  setPlaying(false);
  const wanted = networks(state);
  try {
    const { networks: made } = await ask("start", { networks: wanted, config: config(), rates: state.rates });
    complainUnlessCpu("");
    runs = new Map(
      made.map(({ key, network }) => {
        const name = wanted.find((n) => n.key === key).name;
        return [key, { key, name, network, points: [], smooth: [], epochs: [], each: 0, lr: network.config.lr, done: false }];
      }),
    );
  } catch (e) {
    complain(e.message);
    $("play").disabled = $("step").disabled = $("explain-image").disabled = true;
    return;
  }
  if (!runs.has(state.focus)) state.focus = runs.keys().next().value;
  ready = true;
  $("play").disabled = $("step").disabled = $("reset").disabled = $("save").disabled = $("explain-image").disabled = false;
  closeExplanation();
  $("wrong").disabled = true;
  $("epochs").tBodies[0].replaceChildren();
  showRace();
  showLayers();
  showFigures();
  showCommand();
  redraw();
  if (state.play) play();
  else await look();
}

const focus = () => state.focus;
const run = () => runs.get(state.focus);

function setPlaying(on) {
  playing = on;
  $("play").textContent = on ? "Pause" : "Play";
  $("dot").className = on ? "dot busy" : "dot ready";
}

function play() {
  if (!ready) return;
  setPlaying(true);
  ask("play", { key: focus(), split: "val", index: state.image }).catch((e) => complain(e.message));
}

$("play").addEventListener("click", () => {
  state.play = !playing;
  remember();
  if (playing) {
    setPlaying(false);
    ask("pause");
  } else play();
});
$("step").addEventListener("click", () => {
  setPlaying(false);
  state.play = false;
  ask("step").catch((e) => complain(e.message));
});
$("reset").addEventListener("click", () => {
  state.play = false;
  state.rates = [];
  fill();
  remember();
  begin();
});
addEventListener("keydown", (e) => {
  const typing = e.target.closest?.("input, select, textarea, button, summary, a, label, #explain");
  if (e.code === "Space" && !typing && !e.repeat) {
    e.preventDefault();
    $("play").click();
  }
});

/** Has the worker show what the network in focus makes of the chosen image. */
function look() {
  if (!ready) return Promise.resolve();
  return ask("look", { key: focus(), split: "val", index: state.image }).catch((e) => complain(e.message));
}

// ---- keeping ---------------------------------------------------------------------------------------------------------------------

const fileName = () => `radiograd-${focus()}-seed${state.seed}.safetensors`;

function showCommand() {
  const r = run();
  if (!r || !data) return;
  const c = r.network.config;
  const model = r.key === "own" ? state.chain : r.key;
  const source = data.summary.synthetic ? "phantom" : "DATA";
  $("command").textContent =
    `radiograd eval --model ${model} --weights ${fileName()} --data ${source} --split val --size ${state.size} ` +
    `--mean ${c.mean.join(",")} --std ${c.std.join(",")} --seed ${state.seed}`;
}

$("save").addEventListener("click", async () => {
  try {
    const { bytes } = await ask("save", { key: focus() });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([bytes]));
    link.download = fileName();
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    say(`${link.download} is saved.`);
  } catch (e) {
    complain(e.message);
  }
});

async function restore(file) {
  try {
    const bytes = await file.arrayBuffer();
    await ask("restore", { key: focus(), bytes }, [bytes]);
    complainUnlessCpu("");
    say(`${run().name} goes on with the weights of ${file.name}.`);
  } catch (e) {
    complain(e.message);
  }
}
$("restore").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (file) restore(file);
});

$("link").addEventListener("click", async () => {
  remember();
  try {
    await navigator.clipboard.writeText(location.href);
    $("link").textContent = "Copied";
    setTimeout(() => ($("link").textContent = "Copy link"), 1500);
  } catch {
    say("The address above is the link.");
  }
});

// ---- curves and the race ---------------------------------------------------------------------------------------------------------

let due = false;
let drawn = 0;

function redraw() {
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

function draw() {
  const all = [...runs.values()];
  if (all.length === 0) return;
  const xMost = Math.max(...all.map((r) => r.network.steps_an_epoch)) * state.epochs;
  const lossSeries = all.flatMap((r) => [
    { colour: colour(`--${r.key}`), points: r.points, faint: true },
    { colour: colour(`--${r.key}`), points: r.smooth },
  ]);
  curves($("loss"), lossSeries, { xMost });
  const accuracy = all.map((r) => ({
    colour: colour(`--${r.key}`),
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

function showRace() {
  const rows = [...runs.values()].map((r) => {
    const row = document.createElement("tr");
    row.id = `race-${r.key}`;
    const head = document.createElement("th");
    head.scope = "row";
    const label = document.createElement("label");
    const radio = document.createElement("input");
    Object.assign(radio, { type: "radio", name: "focus", value: r.key, checked: r.key === focus() });
    radio.addEventListener("change", () => {
      state.focus = r.key;
      picture = null;
      remember();
      showLayers();
      showFigures();
      showGalleryMarks();
      look();
    });
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = `var(--${r.key})`;
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

function addEpoch(r, row) {
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

// ---- what it sees ----------------------------------------------------------------------------------------------------------------

/** Some validation images of every class, spread over all. */
function choose(from = 0) {
  const { labels } = data.val;
  const step = Math.max(1, Math.floor(labels.length / GALLERY));
  const spread = Array.from({ length: Math.min(GALLERY, labels.length) }, (_, i) => (from + i * step) % labels.length);
  return [...new Set(spread)];
}

let offset = 0;

async function fillGallery(indices = choose()) {
  if (!indices.includes(state.image)) indices[0] = state.image;
  gallery = indices;
  const { bytes } = await ask("images", { split: "val", indices });
  const n = state.size * state.size;
  const items = indices.map((index, i) => {
    const label = document.createElement("label");
    const radio = document.createElement("input");
    const name = data.summary.classes[data.val.labels[index]];
    Object.assign(radio, { type: "radio", name: "image", value: index, checked: index === state.image });
    radio.setAttribute("aria-label", `Image ${index}, ${name}`);
    label.title = `${data.val.names[index]}: ${name}`;
    radio.addEventListener("change", () => {
      state.image = index;
      remember();
      look();
    });
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
  const k = data.summary.classes.length;
  const row = p.slice(index * k, (index + 1) * k);
  return row.indexOf(Math.max(...row)) !== data.val.labels[index];
}

function showGalleryMarks() {
  [...$("gallery").children].forEach((label, i) => {
    const wrong = isWrong(gallery[i]);
    const mark = label.querySelector(".miss");
    if (wrong && !mark) {
      const dot = document.createElement("span");
      dot.className = "miss";
      label.append(dot);
    } else if (!wrong) mark?.remove();
    const name = data.summary.classes[data.val.labels[gallery[i]]];
    label.querySelector("input").setAttribute("aria-label", `Image ${gallery[i]}, ${name}${wrong ? ", decided wrongly" : ""}`);
  });
}

$("others").addEventListener("click", () => {
  offset += 1;
  const indices = choose(offset);
  state.image = indices[0];
  remember();
  fillGallery(indices).then(look);
});
$("wrong").addEventListener("click", () => {
  const all = data.val.labels.map((_, i) => i).filter(isWrong).slice(0, GALLERY);
  if (all.length === 0) return say("There are no mistakes.");
  state.image = all[0];
  remember();
  fillGallery(all).then(look);
});

function showLayers() {
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

function showPicture() {
  if (!picture || picture.key !== focus()) return;
  const { parts, bytes, seen } = picture;
  xray($("xray"), bytes, state.size, state.size);
  const { classes } = data.summary;
  const truth = data.val.labels[seen.index];
  const decided = parts.probabilities.indexOf(Math.max(...parts.probabilities));
  $("xray").setAttribute("aria-label", `Validation image ${seen.index}, ${classes[truth]}`);
  const verdict = document.createElement("p");
  verdict.className = "verdict";
  verdict.textContent = `It is ${classes[truth]}; ${picture.step === 0 ? "untrained, it" : "it"} says ${classes[decided]}.`;
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
  compareExplanation({ key: picture.key, step: picture.step, index: seen.index });
  $("seeing").textContent = `${run().name} at step ${count(picture.step)} looks at ${data.val.names[seen.index]}.`;
  // Each in a turn of its own: the page stays free between them.
  setTimeout(showMaps);
  setTimeout(showKernels);
}

const values = (part) => {
  const n = part.shape.reduce((a, b) => a * b, 1);
  return picture.values.subarray(part.first, part.first + n);
};

function showMaps() {
  if (!picture || picture.key !== focus()) return;
  const { layers } = run().network.summary;
  const at = layers.findIndex((l) => l.name === state.layer);
  const [layer, part] = [layers[at], picture.parts.layers[at + 1]];
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
  const layer0 = layer.layer;
  $("maps").setAttribute("aria-label", `What ${layer0} makes of the image`);
}

const cellFor = ([count_, h]) => Math.max(32, Math.min(72, count_ > 64 ? 44 : 58, 3 * h));

function deadChannels(numbers, [c, h, w]) {
  let dead = 0;
  for (let i = 0; i < c; i++) if (numbers.subarray(i * h * w, (i + 1) * h * w).every((v) => v === 0)) dead += 1;
  return dead;
}

function showKernels() {
  if (!picture || picture.key !== focus()) return;
  const [first] = picture.parts.kernels;
  $("kernels-box").hidden = !first;
  if (!first) return;
  const [out, inputs, h, w] = first.shape;
  // Of a colour image's filters the first channel.
  const all = values(first);
  const shown = inputs === 1 ? all : Float32Array.from({ length: out * h * w }, (_, i) => all[Math.floor(i / (h * w)) * inputs * h * w + (i % (h * w))]);
  sheet($("kernels"), shown, [out, h, w], { signed: true, cell: 34, gap: 5 });
}

/** The network in focus, as it is now, and the chosen image in full: what `radiograd explain` shows. */
async function explain() {
  const [button, r, index] = [$("explain-image"), run(), state.image];
  // Not disabled, so that the keyboard does not lose its place.
  if (!ready || button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  button.textContent = "Explaining";
  const { classes } = data.summary;
  const [label, image] = [data.val.labels[index], data.val.names[index]];
  try {
    const { json, step } = await ask("explain", { key: r.key, split: "val", index, asked: { name: image, label, classes } });
    // Meanwhile everything may have started over.
    if (runs.get(r.key) === r) await showExplanation(json, { key: r.key, name: r.name, step, index, image });
  } catch (e) {
    complain(e.message);
  }
  button.textContent = "Explain this image";
  button.removeAttribute("aria-busy");
}
$("explain-image").addEventListener("click", explain);

// ---- where it errs ---------------------------------------------------------------------------------------------------------------

function showFigures() {
  const { classes } = data.summary;
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

function cellOf(tag, text, scope) {
  const cell = document.createElement(tag);
  cell.textContent = text;
  if (scope) cell.scope = scope;
  return cell;
}

// ---- the beginning ---------------------------------------------------------------------------------------------------------------

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
  const opened = await ask("open", { cpu: state.device === "cpu" });
  $("device").textContent = opened.device;
  onCpu = opened.cpu;
  if (opened.why) withoutGpu(opened.why);
  const wasOwn = state.data === "own";
  await load();
  await begin();
  if (wasOwn) complain("This link is about images of somebody's own: drop them here again. Until then these are phantom images.", "Other images.");
} catch (e) {
  complain(e.message);
}
