// A part of a tensor along an axis, and its gradient: one invocation an item of the result. An item is one number, or four
// in the vec4 variant; all sizes count items.
//
// Memory sees the tensor as rows of WHOLE items and the part as rows of PART; a row lies OFFSET into a row of the tensor.

// --------------------------------------------------------------------------------------------------------- forward: x -> y
@group(0) @binding(0) var<storage, read> x: array<{{ ITEM }}>;
@group(0) @binding(1) var<storage, read_write> y: array<{{ ITEM }}>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    y[e] = x[e / PART * WHOLE + OFFSET + e % PART];
}

// ---------------------------------------------------------------------------------- gradient: dy -> dx, zeros around the part
@group(0) @binding(0) var<storage, read> dy: array<{{ ITEM }}>;
@group(0) @binding(1) var<storage, read_write> dx: array<{{ ITEM }}>;

@compute @workgroup_size(WG)
fn grad_input(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let column = e % WHOLE;
    var value = {{ ITEM }}();
    if (column >= OFFSET && column < OFFSET + PART) {
        value = dy[e / WHOLE * PART + column - OFFSET];
    }
    dx[e] = value;
}
