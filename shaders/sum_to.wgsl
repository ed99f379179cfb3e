// Sums along axes, plainly: one invocation an output k, which adds TERMS elements one after the other. BASE is where they
// begin and TERM where the t-th of them lies from there.

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
    for (var t = 0u; t < TERMS; t++) {
        sum += x[base + {{ TERM }}];
    }
    y[k] = sum;
}
