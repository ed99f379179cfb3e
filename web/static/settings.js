// The form of settings, and the address that holds them.

import { showCommand } from "./keep.js";
import { $, state } from "./page.js";
import { load } from "./source.js";
import { format } from "./state.js";
import { begin, setRate } from "./training.js";

const RATES = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1];

let written = location.hash;

/** Writes the state into the address. */
export function remember() {
  written = format(state);
  history.replaceState(null, "", written);
  showCommand();
}

/** What a change of settings begins with: it trains from the start, at the first rate, and does not play, unless a link says so. */
export function anew({ play = false, rates = [] } = {}) {
  Object.assign(state, { play, rates });
  fill();
  remember();
}

addEventListener("hashchange", () => {
  if (location.hash !== written) location.reload();
});

const form = $("settings");

/** Shows the state in the form. */
export function fill() {
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
  if (state.nets.length === 0 && state.chain === "") state.nets = ["cnn2"];
  anew();
  if (name === "device") return location.reload();
  if (name === "size" || name === "seed") await load();
  await begin();
});
