// Copies one input of a concatenation to its place: one invocation an item of the input. An item is one number, or four in
// the vec4 variant; all sizes count items.
//
// Memory sees the input as rows of PART items and the output as rows of WHOLE; a row begins OFFSET into a row of the output.

@group(0) @binding(0) var<storage, read> x: array<{{ ITEM }}>;
@group(0) @binding(1) var<storage, read_write> y: array<{{ ITEM }}>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    y[e / PART * WHOLE + OFFSET + e % PART] = x[e];
}
