// The images: drawn, or out of files that are chosen or dropped.

import { ask } from "./engine.js";
import { restore } from "./keep.js";
import { $, complain, count, lab, settled, state } from "./page.js";
import { fillGallery } from "./seeing.js";
import { anew, fill } from "./settings.js";
import { options } from "./state.js";
import { begin, halt, look } from "./training.js";

/** Files that were dropped, to be read again where the image size changes. */
let dropped = null;
/** What a link says of a training on images that have yet to be dropped. */
let awaited = null;

/** Keeps what the address says until its images are there. */
export function awaitImages() {
  const { rates, image, play } = state;
  awaited = { rates, image, play };
  Object.assign(state, { rates: [], image: 0, play: false });
  fill();
}

/** Draws or reads the images. */
export async function load() {
  halt();
  $("source").textContent = dropped ? "Reading the images" : "Drawing phantom images";
  try {
    if (dropped?.npz) lab.data = await ask("npz", { file: dropped.npz, options: options(state) });
    else if (dropped) lab.data = await ask("folder", { name: dropped.name, files: dropped.files, options: options(state) });
    else lab.data = await ask("phantom", { options: options(state) });
    settled("images");
  } catch (e) {
    complain("images", e.message);
    if (!dropped) throw e;
    dropped = null;
    state.data = "phantom";
    lab.data = await ask("phantom", { options: options(state) });
  }
  state.data = dropped ? "own" : "phantom";
  lab.own = null;
  $("phantom").hidden = !dropped;
  const { summary } = lab.data;
  const classes = summary.classes.map((c, i) => `${c} ${count(summary.train[i] ?? 0)}`).join(", ");
  const total = (of) => of.reduce((a, b) => a + b, 0);
  $("source").textContent = `${summary.source}. To learn from: ${classes}; to validate: ${count(total(summary.val))}${
    summary.skipped ? `; left out as unreadable: ${count(summary.skipped)}` : ""
  }.`;
  state.image = Math.min(state.image, lab.data.val.labels.length - 1);
  await fillGallery();
}

function takeFiles(files, name) {
  const npz = files.find((f) => f.path.toLowerCase().endsWith(".npz"));
  dropped = npz && files.length === 1 ? { npz: npz.file } : { name, files };
  return other();
}

/** Begins anew on other images, or as the link says that was about these. */
async function other() {
  try {
    state.image = dropped && awaited ? awaited.image : 0;
    await load();
    anew((dropped && awaited) || {});
    if (dropped) awaited = null;
    await begin();
  } catch (e) {
    complain("images", e.message);
  }
}

/** Has the network in focus look at one image. */
async function lookAt(file) {
  try {
    const { bytes } = await ask("decode", { file, size: state.size });
    lab.own = { name: file.name, bytes };
    settled("image");
    for (const radio of $("gallery").querySelectorAll("input")) radio.checked = false;
    await look();
  } catch (e) {
    complain("image", e.message);
  }
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
  other();
});
$("own").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (file) lookAt(file);
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
  if (files.length === 1 && !files[0].path.includes("/") && /\.(png|jpe?g|bmp|gif|tiff?|webp)$/i.test(files[0].path)) return lookAt(files[0].file);
  if (files.length) await takeFiles(files, (entries[0] ?? files[0].file).name);
});
