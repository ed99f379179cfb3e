// Pipelines compiled ahead. The crate asks for one after another, and each has to be ready before it goes on; the browser compiles several
// at a time, and meanwhile images are drawn. What is ready is kept: asked again for the same text and bindings, Chromium hands out
// the pipeline that it has, also to the next training.

const kept = [];
/** What is being compiled. */
let flying = Promise.resolve();

/** Has a device compile pipelines, and waits until all are ready; `next` gives one as JSON. What is wrong with one is said when the crate asks for it. */
export async function compile(device, next) {
  if (!device) return;
  const one = async ({ label, code, entry, bindings }) => {
    const entries = bindings.map(([binding, type]) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type } }));
    const layout = device.createPipelineLayout({ label, bindGroupLayouts: [device.createBindGroupLayout({ label, entries })] });
    const module = device.createShaderModule({ label, code });
    kept.push(await device.createComputePipelineAsync({ label, layout, compute: { module, entryPoint: entry } }));
  };
  const all = [];
  for (let wish; (wish = next()); ) {
    all.push(one(JSON.parse(wish)).catch(() => {}));
    // The browser sends its commands off in a microtask: so the first is compiled while the next is written.
    await null;
  }
  // What was told before is not told again, and may not be ready yet.
  flying = Promise.all([flying, ...all]);
  await flying;
}
