// Pointwise functions: one invocation an element. FORWARD and DERIVATIVE are the formulas of one row of the table in
// src/ops/pointwise.rs; P is the row's parameter.

fn element(id: vec3<u32>) -> u32 {
    return id.y * GRID_X + id.x;
}

{% if FORWARD is defined %}
@group(0) @binding(0) var<storage, read> input: array<f32>;
@group(0) @binding(1) var<storage, read_write> output: array<f32>;

fn f(x: f32, p: f32) -> f32 {
    return {{ FORWARD }};
}

// y = f(x)
@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = element(id);
    if (i >= COUNT) {
        return;
    }
    output[i] = f(input[i], P);
}
{% else %}
@group(0) @binding(0) var<storage, read> values: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

fn slope(y: f32, p: f32) -> f32 {
    return {{ DERIVATIVE }};
}

// dx = dy * f'(x), with f' in terms of y = f(x)
@compute @workgroup_size(WG)
fn gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = element(id);
    if (i >= COUNT) {
        return;
    }
    dx[i] = dy[i] * slope(values[i], P);
}
{% endif %}
