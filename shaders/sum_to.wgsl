// Sums along axes, plainly: one invocation an output k, which adds elements one after the other. BASE is where they
// begin and TERM where the t-th of them lies from there. A dispatch adds the terms FIRST to LAST; where
// those are not all, further ones add the rest to what is there.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let k = id.y * GRID_X + id.x;
    if (k >= COUNT) {
        return;
    }
    let base = {{ BASE }};
    var sum = 0.0;
    if (FIRST > 0u) {
        sum = y[k];
    }
    for (var t = FIRST; t < LAST; t++) {
        sum += x[base + {{ TERM }}];
    }
    y[k] = sum;
}
