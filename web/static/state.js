// The state of the lab as it stands in the address: a link holds all that is needed to repeat what somebody saw.

export const DEFAULTS = {
  data: "phantom",
  nets: ["cnn2"],
  chain: "",
  lr: 0.001,
  rates: [],
  batch: 32,
  epochs: 6,
  seed: 0,
  size: 28,
  images: 0,
  image: 0,
  focus: "",
  layer: "",
  device: "gpu",
  play: false,
};

export const NETS = ["cnn1", "cnn2", "cnn3"];

const whole = (least, most) => (text) => {
  const n = Number(text);
  return Number.isInteger(n) && n >= least && n <= most ? n : undefined;
};

const positive = (text) => {
  const n = Number(text);
  return Number.isFinite(n) && n > 0 && n <= 10 ? n : undefined;
};

const read = {
  data: (text) => (text === "own" || text === "phantom" ? text : undefined),
  nets: (text) => text.split(",").filter((n) => NETS.includes(n)),
  chain: (text) => (text.length <= 400 ? text : undefined),
  lr: positive,
  // step:rate, step:rate
  rates: (text) =>
    text.split(",").flatMap((pair) => {
      const [step, lr] = pair.split(":");
      const [n, r] = [whole(1, 1e9)(step), positive(lr)];
      return n === undefined || r === undefined ? [] : [[n, r]];
    }),
  batch: whole(1, 1024),
  epochs: whole(1, 1000),
  seed: whole(0, 4294967295),
  size: whole(8, 256),
  images: whole(0, 100000),
  image: whole(0, 1e6),
  focus: (text) => text.slice(0, 8),
  layer: (text) => text.slice(0, 100),
  device: (text) => (text === "cpu" ? "cpu" : "gpu"),
  play: (text) => text === "1",
};

const write = {
  nets: (v) => v.join(","),
  rates: (v) => v.map(([step, lr]) => `${step}:${lr}`).join(","),
  play: (v) => (v ? "1" : "0"),
};

/** What an address says; what it does not say, or says wrongly, is as usual. */
export function parse(hash) {
  const state = structuredClone(DEFAULTS);
  for (const [name, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
    const value = read[name]?.(text);
    if (value !== undefined) state[name] = value;
  }
  if (state.nets.length === 0 && state.chain === "") state.nets = [...DEFAULTS.nets];
  return state;
}

/** The address of a state, without what is as usual. */
export function format(state) {
  const params = new URLSearchParams();
  for (const name of Object.keys(DEFAULTS)) {
    const text = (value) => (write[name] ?? String)(value);
    if (text(state[name]) !== text(DEFAULTS[name])) params.set(name, text(state[name]));
  }
  return params.size ? `#${params}` : "#";
}

/** The networks of a state: a key, the text that the crate reads, and the name that people see. */
export function networks(state) {
  const named = state.nets.map((n) => ({ key: n, model: n, name: n }));
  return state.chain ? [...named, { key: "own", model: state.chain, name: "your network" }] : named;
}

/** The settings of a run as the crate reads them. */
export const config = ({ size, epochs, batch, lr, seed }, data = "phantom") => ({ data, size, epochs, batch, lr, seed });

/** How images are read or drawn. */
export const options = ({ size, seed, images }) => ({ size, seed, ...(images ? { images } : {}) });
