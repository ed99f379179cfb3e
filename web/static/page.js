// What all parts of the page share: what is known so far, and how it speaks.

import { first } from "./engine.js";

export const $ = (id) => document.getElementById(id);

export const state = first;
/** By key: { key, name, network, points, smooth, epochs, each, lr, metrics, probabilities, done }. */
export const runs = new Map();
/** What the worker said last: its device, whether trainings are still on the CPU, the data { summary, val }, how the network sees the chosen image. */
export const lab = { device: "", early: false, data: null, picture: null };

/** The key of the network that is looked at, and the network. */
export const focus = () => state.focus;
export const run = () => runs.get(state.focus);

export const percent = (v) => `${(100 * v).toFixed(1)} %`;
/** A whole number with thin spaces between its thousands. */
export const count = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");

export function say(text) {
  $("said").textContent = text;
}

/** Says what went wrong, and what to do; an empty text takes it away. */
export function complain(text, title = "That did not work.") {
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

export function withoutGpu(why) {
  complain(
    `${why}. Chrome and Edge from version 113, Safari from 26 and Firefox from 141 on Windows have it; on Linux, Chrome may need ` +
      "chrome://flags/#enable-unsafe-webgpu, and the page must come over https or from localhost. Until then the lab trains on the CPU, " +
      "by the same network and the same numbers, more slowly.",
    "No WebGPU here.",
  );
}

/** Whether the notice about the device is to stay where others go. */
let onCpu = false;
export const stayOnCpu = (cpu) => (onCpu = cpu);

/** Takes a notice away, but for that one. */
export function complainUnlessCpu(text) {
  if (!onCpu || text) complain(text);
}

/** A cell of a table. */
export function cellOf(tag, text, scope) {
  const cell = document.createElement(tag);
  cell.textContent = text;
  if (scope) cell.scope = scope;
  return cell;
}
