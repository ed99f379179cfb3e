// The labels of a batch: y[b] = t[index[b]]. An index past the last label means the last one.

@group(0) @binding(0) var<storage, read> t: array<u32>;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let b = id.y * GRID_X + id.x;
    if (b >= COUNT) {
        return;
    }
    y[b] = t[min(index[b], LABELS - 1u)];
}
