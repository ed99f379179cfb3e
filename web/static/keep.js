// What is kept: weights, and the link.

import { ask } from "./engine.js";
import { $, complain, count, focus, lab, run, say, settled, state } from "./page.js";
import { remember } from "./settings.js";

const fileName = () => `radiograd-${focus()}-seed${state.seed}.safetensors`;

/** The command that measures the saved weights. */
export function showCommand() {
  const r = run();
  if (!r || !lab.data) return;
  const c = r.network.config;
  // A chain may have brackets, which shells take for patterns.
  const model = r.key === "own" ? `'${state.chain.replaceAll("'", "'\\''")}'` : r.key;
  const source = lab.data.summary.synthetic ? "phantom" : "DATA";
  $("command").textContent =
    `radiograd eval --model ${model} --weights ${fileName()} --data ${source} --split val --size ${state.size} ` +
    `--mean ${c.mean.join(",")} --std ${c.std.join(",")} --seed ${state.seed}`;
  const others = lab.data.summary.synthetic && state.images > 0;
  $("command-note").textContent = others ? `, on the 200 validation images that it draws by itself, not on these ${count(lab.data.val.labels.length)}` : "";
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
    settled("weights");
  } catch (e) {
    complain("weights", e.message);
  }
});

/** Goes on with the weights of a file. */
export async function restore(file) {
  try {
    const bytes = await file.arrayBuffer();
    await ask("restore", { key: focus(), bytes }, [bytes]);
    settled("weights");
    say(`${run().name} goes on with the weights of ${file.name}.`);
  } catch (e) {
    complain("weights", e.message);
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
