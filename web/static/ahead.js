// Pipelines compiled ahead. The crate asks for one after another, and each has to be ready before it goes on; the browser compiles several
// at a time, and meanwhile images are drawn. What is ready is kept: asked again for the same text and bindings, Chromium hands out
// the pipeline that it has, also to the next training.

const kept = [];

/** Has a device compile pipelines, and waits until all are ready. What is wrong with one is said when the crate asks for it. */
export async function compile(device, wishes) {
  if (!device) return;
  // The long ones first, so that no core is left with one of them at the end.
  const long = [...wishes].sort((a, b) => b.code.length - a.code.length);
  const one = async ({ label, code, entry, bindings }) => {
    const entries = bindings.map((type, binding) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type } }));
    const layout = device.createPipelineLayout({ label, bindGroupLayouts: [device.createBindGroupLayout({ label, entries })] });
    const module = device.createShaderModule({ label, code });
    kept.push(await device.createComputePipelineAsync({ label, layout, compute: { module, entryPoint: entry } }));
  };
  const lane = async () => {
    for (let next; (next = long.shift()); ) await one(next).catch(() => {});
  };
  // More at once than there are cores only get in each other's way.
  await Promise.all(Array.from({ length: Math.max(1, navigator.hardwareConcurrency ?? 2) }, lane));
}
