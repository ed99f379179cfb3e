// Dropout as in dropout.wgsl, four elements an invocation: wide loads and stores, and the two words of the seed read once for four draws.
// COUNT is the number of vec4.

{% include "lib/rng.wgsl" %}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> seed_and_step: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let words = seed_and_step[0];
    let draws = vec4({% for q in range(4) %}random_bits(words.x, words.y, STREAM, 4u * i + {{ q }}u), {% endfor %});
    y[i] = select(vec4<f32>(), x[i] * SCALE, vec4(ANY) & (draws >= vec4(THRESHOLD)));
}
