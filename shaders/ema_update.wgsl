// An exponential moving average in place: running = KEEP * running + TAKE * stat, one invocation an element. The result is
// also the node's output.

@group(0) @binding(0) var<storage, read> stat: array<f32>;
@group(0) @binding(1) var<storage, read_write> running: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let value = KEEP * running[i] + TAKE * stat[i];
    running[i] = value;
    y[i] = value;
}
