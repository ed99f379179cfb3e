// The worker that computes. It owns the device, the data and the trainings; the page draws.
//
// Messages in: { id, call, ...arguments }; each is answered by { id, ok } or { id, error }. Messages of its own accord: { tell, ... }.
// Calls run one after another, and between them the trainings go on, a tick at a time. Pipelines are compiled beside them (ahead.js).

import { compile } from "./ahead.js";
import init, { Data, Device, Folder, Run, image } from "./radiograd.js";

/** Seconds of one tick, about: short enough that the page stays lively, long enough that reading back is no burden. */
const TICK = 0.06;
/** Milliseconds between two pictures of what the network sees while it learns. */
const PICTURE = 350;
/** Operations that the CPU may do while the browser compiles the shaders, and steps, at most. Not a time: the same settings must give the same run. */
const HEAD_START = { flops: 3e9, steps: 8 };

let device = null;
/** Where trainings begin while the browser compiles the GPU's shaders. */
let cpu = null;
let data = null;
let runs = [];
let playing = false;
let ticking = false;
let seen = { split: "val", index: 0, bytes: null };
let focus = "";
let pictured = 0;
let changes = [];
/** After how many steps the trainings move from the CPU to the GPU; 0 where they are where they belong. */
let moveAfter = 0;
/** Nothing is being compiled: as on the CPU. */
const nothing = { text: "", headStart: 0, train: Promise.resolve(), trained: true, inspect: () => Promise.resolve(), done: true };
/** For which training pipelines are being compiled, and until when. */
let prepared = nothing;
/** Ends a wait for pipelines that nobody wants any more. */
let wake = () => {};

/** All that touches the device happens in this chain. */
let chain = Promise.resolve();
const inTurn = (task) => {
  const result = chain.then(task);
  chain = result.catch(() => {});
  return result;
};

const tell = (message, transfer = []) => postMessage(message, transfer);

const calls = {
  /** Opens the GPU, or the CPU where there is none or it is asked for. */
  async open({ module, onCpu }) {
    await init({ module_or_path: module });
    let [why, name] = ["", ""];
    if (!onCpu) {
      try {
        if (!navigator.gpu) throw new Error("this browser has no WebGPU, or not for background workers");
        device = await Device.gpu();
        // The crate sees the sort of adapter; what it is called only the browser says.
        const info = (await navigator.gpu.requestAdapter({ powerPreference: "high-performance" }))?.info;
        name = info?.description || [info?.vendor, info?.architecture].filter(Boolean).join(" ");
      } catch (e) {
        why = e.message || String(e);
      }
    }
    if (!device) device = Device.cpu();
    return { device: [device.describe(), name].filter(Boolean).join(", "), onCpu: onCpu || why !== "", why };
  },

  /** Has the pipelines compiled that a training on phantom images will want, before these are drawn. */
  ahead({ networks, config, options }) {
    const blank = Data.blank(JSON.stringify(options));
    prepare(networks, config, blank, JSON.stringify([networks, config, options.images]));
    blank.free();
    return {};
  },

  phantom({ options }) {
    return take(Data.phantom(JSON.stringify(options)));
  },

  async npz({ file, options }) {
    const bytes = new Uint8Array(await file.arrayBuffer());
    return take(Data.npz(file.name, bytes, JSON.stringify(options)));
  },

  async folder({ name, files, options }) {
    const folder = new Folder(name, JSON.stringify(options));
    const wanted = files.filter((f) => Folder.wants(f.path));
    for (const [i, { path, file }] of wanted.entries()) {
      folder.add(path, new Uint8Array(await file.arrayBuffer()));
      if (i % 25 === 0) tell({ tell: "reading", done: i, total: wanted.length });
    }
    return take(folder.finish());
  },

  /** The images of a split, or some of them, for pictures. */
  images({ split, indices }) {
    return { bytes: data.images(split, Uint32Array.from(indices)) };
  },

  /** Sets trainings up, one for each network; those that were are gone. Where there is a GPU they begin on the CPU, if their steps are small. */
  async start({ networks, config, images, rates }) {
    drop();
    changes = rates.map(([step, lr]) => ({ step, lr }));
    const text = JSON.stringify([networks, config, images]);
    if (prepared.text !== text) prepare(networks, config, data, text);
    const set = networks.map(({ key, model }) => ({ key, settings: JSON.stringify({ ...config, model }), seconds: 0, rate: 0 }));
    moveAfter = device.handle() ? prepared.headStart : 0;
    if (moveAfter === 0) await prepared.train;
    const begin = moveAfter === 0 ? device : (cpu ??= Device.cpu());
    runs = set.map((r) => ({ ...r, run: new Run(begin, data, r.settings) }));
    const made = runs.map(({ key, run }) => ({ key, network: JSON.parse(run.describe()) }));
    tell({ tell: "place", early: moveAfter > 0 });
    if (!runs.some((r) => r.key === focus)) focus = runs[0]?.key ?? "";
    pictured = 0;
    return { networks: made };
  },

  play({ key, split, index, bytes }) {
    focus = key;
    seen = { split, index, bytes: bytes ?? null };
    playing = true;
    go();
    return {};
  },

  pause() {
    playing = false;
    return {};
  },

  /** One step of every network, with a picture after it. */
  async step() {
    if (mustWait()) {
      // Not in turn: a wait for pipelines must not keep other calls.
      const [mine, { train }] = [runs, prepared];
      train.then(() => inTurn(() => mine === runs && calls.step())).catch(failed);
      return {};
    }
    await tick(1);
    await picture();
    return {};
  },

  rate({ lr }) {
    const step = Math.max(0, ...runs.map((r) => r.run.done()));
    for (const r of runs) r.run.set_lr(lr);
    changes.push({ step, lr });
    return { step };
  },

  async look({ key, split, index, bytes }) {
    focus = key;
    seen = { split, index, bytes: bytes ?? null };
    await picture();
    return {};
  },

  /** An image file as the networks take it. */
  async decode({ file, size }) {
    return { bytes: image(file.name, new Uint8Array(await file.arrayBuffer()), size) };
  },

  /** All that the explain page shows of an image, as JSON. */
  async explain({ key, split, index, bytes, asked }) {
    const { run } = find(key);
    const json = await run.explain(bytes ?? data.image(split, index), JSON.stringify(asked));
    return { json, step: run.done() };
  },

  async save({ key }) {
    const bytes = await find(key).run.weights();
    return { bytes };
  },

  async restore({ key, bytes }) {
    find(key).run.put_weights(new Uint8Array(bytes));
    await picture();
    return {};
  },
};

/** Begins to compile what a training will want: what its steps need first. */
function prepare(networks, config, on, text) {
  if (!device.handle()) return (prepared = nothing);
  const wishes = networks.map(({ model }) => Run.wishes(device, on, JSON.stringify({ ...config, model })));
  const all = (next) => Promise.all(wishes.map((w) => compile(device.handle(), () => next(w))));
  // A pass back is about twice a pass forward.
  const work = 3 * wishes.reduce((sum, w) => sum + w.flops(), 0);
  const headStart = Math.min(HEAD_START.steps, Math.floor(HEAD_START.flops / work));
  const train = all((w) => w.train());
  const mine = { text, headStart, train, trained: false, done: false };
  train.then(() => (mine.trained = true));
  let inspect = null;
  // Begins when it is first asked for.
  mine.inspect = () => (inspect ??= train.then(() => all((w) => w.inspect())).then(() => (mine.done = true)));
  prepared = mine;
}

/** Whether the CPU has done its steps, and the GPU's pipelines are not there yet. */
const mustWait = () => moveAfter > 0 && !prepared.trained && runs.some((r) => !r.run.is_done() && r.run.done() >= moveAfter);

/** Has the trainings go on on the GPU; or all further ones on the CPU, where the GPU fails. */
async function move() {
  await prepared.train;
  const next = [];
  let why = "";
  try {
    for (const r of runs) {
      next.push(new Run(device, data, r.settings));
      await next.at(-1).take_over(r.run);
    }
  } catch (e) {
    why = e.message || String(e);
    device = cpu;
    prepared = nothing;
    for (const run of next) run.free();
  }
  if (!why) {
    for (const [i, r] of runs.entries()) {
      r.run.free();
      Object.assign(r, { run: next[i], rate: 0, count: 1 });
    }
  }
  moveAfter = 0;
  tell({ tell: "place", early: false, ...(why && { device: device.describe(), why }) });
}

const find = (key) => {
  const found = runs.find((r) => r.key === key);
  if (!found) throw new Error(`no network ${key} is in training`);
  return found;
};

/** Lets go of all trainings. */
function drop() {
  playing = false;
  const old = runs;
  runs = [];
  for (const r of old) r.run.free();
  wake();
}

function take(next) {
  drop();
  if (data) data.free();
  data = next;
  seen = { split: "val", index: 0, bytes: null };
  return { summary: JSON.parse(data.summary()), val: JSON.parse(data.split("val")) };
}

/** Some steps of every network that is not done, all alike: the race is fair by steps. */
async function tick(most) {
  const active = runs.filter((r) => !r.run.is_done());
  if (moveAfter > 0 && active.length && active[0].run.done() >= moveAfter) await move();
  let count = Math.min(most, ...active.map((r) => r.count ?? 1));
  if (moveAfter > 0 && active.length) count = Math.min(count, moveAfter - active[0].run.done());
  for (const r of active) {
    const start = performance.now();
    const before = r.run.done();
    const rest = changes.find((c) => c.step > before);
    for (const c of changes) if (c.step === before) r.run.set_lr(c.lr);
    r.run.steps(Math.min(count, rest ? rest.step - before : count));
    const rows = await r.run.look();
    // Not before: it would take the first step's cores.
    if (moveAfter === 0) prepared.inspect();
    const steps = r.run.done() - before;
    let seconds = (performance.now() - start) / 1000;
    r.seconds += seconds;
    if (steps > 0) {
      const each = seconds / steps;
      r.rate = r.rate ? 0.8 * r.rate + 0.2 * each : each;
      r.count = Math.min(32, Math.max(1, Math.round(TICK / r.rate)));
    }
    tell({ tell: "steps", key: r.key, first: before, rows, lr: r.run.lr(), each: r.rate }, [rows.buffer]);
    if (r.run.epoch_is_full()) {
      const { row, metrics, probabilities } = JSON.parse(await r.run.end_epoch());
      tell({ tell: "epoch", key: r.key, step: r.run.done(), row, metrics, probabilities, done: r.run.is_done() });
    }
  }
  return runs.some((r) => !r.run.is_done());
}

/** What the network in focus makes of the chosen image. */
async function picture() {
  const r = runs.find((r) => r.key === focus);
  if (!r) return;
  pictured = performance.now();
  if (moveAfter === 0) await prepared.inspect();
  const bytes = seen.bytes ?? data.image(seen.split, seen.index);
  const inspection = await r.run.inspect(bytes);
  const parts = JSON.parse(inspection.parts());
  const values = inspection.values();
  inspection.free();
  tell({ tell: "picture", key: r.key, step: r.run.done(), seen: { split: seen.split, index: seen.index, own: seen.bytes !== null }, bytes, parts, values }, [values.buffer]);
}

function failed(e) {
  playing = false;
  tell({ tell: "failed", error: e.message || String(e) });
}

/** Plays on until it is told to stop; other calls come between the ticks. */
function go() {
  if (ticking) return;
  ticking = true;
  const turn = async () => {
    if (!playing) return false;
    if (mustWait()) return "wait";
    const more = await tick(Infinity);
    if (((prepared.done || moveAfter > 0) && performance.now() - pictured > PICTURE) || !more) await picture();
    if (!more) {
      playing = false;
      tell({ tell: "done" });
    }
    return more && playing;
  };
  const next = () => {
    inTurn(turn).then(
      (more) => {
        // Out of turn, so that what a person does meanwhile is done.
        if (more === "wait") Promise.race([prepared.train, new Promise((resolve) => (wake = resolve))]).then(next);
        else if (more) setTimeout(next);
        else ticking = false;
        if (!more && playing) go();
      },
      (e) => {
        ticking = false;
        failed(e);
      },
    );
  };
  next();
}

onmessage = ({ data: message }) => {
  const { id, call } = message;
  // A pause need not wait for its turn, and a step stops what plays.
  if (call === "pause" || call === "step") playing = false;
  inTurn(() => calls[call](message)).then(
    (ok) => tell({ id, ok }),
    (e) => tell({ id, error: e.message || String(e) }),
  );
};
