// Training: begin, play, pause, one step.

import { redraw, showRace } from "./curves.js";
import { ask } from "./engine.js";
import { closeExplanation } from "./explaining.js";
import { showFigures } from "./figures.js";
import { showCommand } from "./keep.js";
import { $, complain, focus, lab, runs, settled, state } from "./page.js";
import { showLayers } from "./seeing.js";
import { anew, remember } from "./settings.js";
import { config, networks, options } from "./state.js";

let playing = false;
let ready = false;

/** Nothing trains until it begins again. */
export function halt() {
  ready = false;
  setPlaying(false);
}

/** Sets the networks up anew. */
export async function begin() {
  halt();
  const wanted = networks(state);
  try {
    const { networks: made } = await ask("start", {
      networks: wanted,
      config: config(state, lab.data.summary.synthetic ? "phantom" : lab.data.summary.source),
      images: options(state).images,
      rates: state.rates,
    });
    settled("training");
    runs.clear();
    for (const { key, network } of made) {
      const name = wanted.find((n) => n.key === key).name;
      runs.set(key, { key, name, network, points: [], smooth: [], epochs: [], each: 0, lr: network.config.lr, done: false });
    }
  } catch (e) {
    complain("training", e.message);
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

export function setPlaying(on) {
  playing = on;
  $("play").textContent = on ? "Pause" : "Play";
  $("dot").className = on ? "dot busy" : "dot ready";
}

/** The network in focus and the image that it is to look at. */
const chosen = () => ({ key: focus(), split: "val", index: state.image, bytes: lab.own?.bytes });

function play() {
  if (!ready) return;
  setPlaying(true);
  ask("play", chosen()).catch((e) => complain("training", e.message));
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
  remember();
  ask("step").catch((e) => complain("training", e.message));
});
$("reset").addEventListener("click", () => {
  anew();
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
export function look() {
  if (!ready) return Promise.resolve();
  return ask("look", chosen()).catch((e) => complain("training", e.message));
}

/** Another rate: for the whole run before its first step, from here on after it. */
export async function setRate(lr) {
  if (!ready || [...runs.values()].every((r) => r.points.length === 0)) {
    Object.assign(state, { lr, rates: [] });
    remember();
    return begin();
  }
  const { step } = await ask("rate", { lr });
  state.rates.push([step, lr]);
  remember();
}
