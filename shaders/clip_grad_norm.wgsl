// The four numbers of an optimizer step with the gradient's scale, the last of them, made smaller where the gradient is
// longer than MAX_NORM. stats[0] is the sum of the gradient's squares. One invocation a number.

@group(0) @binding(0) var<storage, read> hyper: array<f32>;
@group(0) @binding(1) var<storage, read> stats: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let clip = min(1.0, MAX_NORM / (sqrt(stats[0]) + EPS));
    y[i] = hyper[i] * select(1.0, clip, i == 3u);
}
