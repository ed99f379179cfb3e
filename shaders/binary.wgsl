// a + b and a * b: one invocation an element of the output. INDEX_A and INDEX_B say which elements of the two inputs
// broadcasting pairs with element i.

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    y[i] = a[{{ INDEX_A }}] {{ OPERATOR }} b[{{ INDEX_B }}];
}
