// Writes rows into a log of ROWS rows, from row at[0] on: one invocation an element. Rows past the end are dropped.

@group(0) @binding(0) var<storage, read> rows: array<f32>;
@group(0) @binding(1) var<storage, read> at: array<u32>;
@group(0) @binding(2) var<storage, read_write> log_: array<f32>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let first = min(at[0], ROWS);             // so that no sum below can wrap around
    if (e / COLUMNS < ROWS - first) {
        log_[first * COLUMNS + e] = rows[e];
    }
}
