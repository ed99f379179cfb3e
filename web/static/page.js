// What all parts of the page share: what is known so far, and how it speaks.

import { first } from "./engine.js";

export const $ = (id) => document.getElementById(id);

export const state = first;
/** By key: { key, name, network, points, smooth, epochs, each, lr, metrics, probabilities, done }. */
export const runs = new Map();
/**
 * What the worker said last: its device, whether trainings are still on the CPU, the data { summary, val }, how the network sees the chosen
 * image. And `own`, { name, bytes }: a person's image, where that is the chosen one.
 */
export const lab = { device: "", early: false, data: null, own: null, picture: null };

/** The key of the network that is looked at, and the network. */
export const focus = () => state.focus;
export const run = () => runs.get(state.focus);

export const percent = (v) => `${(100 * v).toFixed(1)} %`;
/** A whole number with thin spaces between its thousands. */
export const count = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");

export function say(text) {
  $("said").textContent = text;
}

function notice(box, text, title) {
  const strong = document.createElement("strong");
  strong.textContent = title;
  const p = document.createElement("p");
  p.append(strong, ` ${text}`);
  box.replaceChildren(p);
  box.hidden = false;
}

/** What the notice is about. */
let about = "";

/** Says what went wrong, and what to do; it stays until `settled` is called about the same: images, training, weights. */
export function complain(what, text, title = "That did not work.") {
  about = what;
  notice($("notice"), text, title);
}

/** Takes away what was said about something that has gone well now. */
export function settled(what) {
  if (about === what) $("notice").hidden = true;
}

/** Says, for good, that the GPU failed, and what comes of it. */
export function gpuFailed(why) {
  notice($("without"), `${why}. The training goes on on the CPU where it was; reload the page to try the GPU again.`, "The GPU failed.");
}

export function withoutGpu(why) {
  notice(
    $("without"),
    `${why}. Chrome and Edge from version 113, Safari from 26 and Firefox from 141 on Windows have it; on Linux, Chrome may need ` +
      "chrome://flags/#enable-unsafe-webgpu, and the page must come over https or from localhost. Until then the lab trains on the CPU, " +
      "by the same network and the same numbers, more slowly.",
    "No WebGPU here.",
  );
}

/** A cell of a table. */
export function cellOf(tag, text, scope) {
  const cell = document.createElement(tag);
  cell.textContent = text;
  if (scope) cell.scope = scope;
  return cell;
}
