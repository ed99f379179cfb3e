// The page's end of the worker that computes. It is the first script of the page: while the others arrive, the worker starts, the browser
// compiles the crate, and the pipelines that the address asks for.

import { config, networks, options, parse } from "./state.js";

/** What the worker says of its own accord goes to these, by name; the page fills them in. */
export const told = {};
/** Called with a message where the worker ends by itself. */
export const ended = { then: () => {} };

const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let lastId = 0;

/** Asks the worker for something; what it answers arrives as a promise. */
export function ask(call, message = {}, transfer = []) {
  lastId += 1;
  const id = lastId;
  worker.postMessage({ id, call, ...message }, transfer);
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

worker.onmessage = ({ data: message }) => {
  if (message.tell) return told[message.tell]?.(message);
  const { resolve, reject } = waiting.get(message.id);
  waiting.delete(message.id);
  if (message.error === undefined) resolve(message.ok);
  else reject(new Error(message.error));
};
worker.onerror = (e) => ended.then(e.message || "out of memory");

/** The state that the address held when the page was opened. */
export const first = parse(location.hash);

async function compile() {
  const response = await fetch(new URL("./radiograd_bg.wasm", import.meta.url));
  // A server that does not know the type of the file is no reason to fail.
  const streams = response.headers.get("content-type")?.startsWith("application/wasm");
  return streams ? WebAssembly.compileStreaming(response) : WebAssembly.compile(await response.arrayBuffer());
}

const crate = compile();
/** What the worker computes on. */
export const opened = crate.then((module) => ask("open", { module, onCpu: first.device === "cpu" }));
opened.then(
  // Nobody waits for it, and what is wrong with it the training says.
  () => ask("ahead", { networks: networks(first), config: config(first), options: options(first) }).catch(() => {}),
  () => {},
);
