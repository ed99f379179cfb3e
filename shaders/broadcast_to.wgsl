// Repeats a tensor along the axes that broadcasting adds: INDEX is the element of x that element i of y repeats.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    y[i] = x[{{ INDEX }}];
}
