// Dropout, and its own gradient (applied to dy): one invocation an element. An element is kept where its draw is at least
// THRESHOLD = floor(p 2^32), and then multiplied by SCALE = 1 / (1 - p). ANY is false for p = 1, where nothing is kept.

{% include "lib/rng.wgsl" %}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> seed_and_step: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let draw = random_bits(seed_and_step[0], seed_and_step[1], STREAM, i);
    y[i] = select(0.0, x[i] * SCALE, ANY && draw >= THRESHOLD);
}
