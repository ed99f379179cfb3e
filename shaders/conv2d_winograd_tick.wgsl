// Which chunk of tiles the following dispatches work on: `reset` starts with the first, `next` goes on to the one after.
// Chunks make the scratch buffers of the Winograd convolution small enough for the cache (and for the limit of a binding). The same
// three pipelines serve all chunks, because they read the number here instead of having it as a constant.
@group(0) @binding(0) var<storage, read_write> counter: array<u32>;

@compute @workgroup_size(1)
fn reset() {
    counter[0] = 0u;
}

@compute @workgroup_size(1)
fn next() {
    counter[0] += 1u;
}
