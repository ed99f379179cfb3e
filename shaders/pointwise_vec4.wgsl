// Pointwise functions, four elements an invocation. The idea: they are bound by memory, and a memory unit (or the loop over lanes that
// stands for one in software) moves 16 bytes as fast as 4. One vec4 an invocation, neighbours side by side; more to an invocation would
// tear neighbours apart. COUNT is the number of vec4; the formulas are those of pointwise.wgsl, component by component.

{% macro each(f) %}vec4({{ f }}(v.x, P), {{ f }}(v.y, P), {{ f }}(v.z, P), {{ f }}(v.w, P)){% endmacro %}
{% if FORWARD is defined %}
@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> output: array<vec4<f32>>;

fn f(x: f32, p: f32) -> f32 {
    return {{ FORWARD }};
}

// y = f(x)
@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let v = input[i];
    output[i] = {{ each("f") }};
}
{% else %}
@group(0) @binding(0) var<storage, read> values: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dx: array<vec4<f32>>;

fn slope(y: f32, p: f32) -> f32 {
    return {{ DERIVATIVE }};
}

// dx = dy * f'(x), with f' in terms of y = f(x)
@compute @workgroup_size(WG)
fn gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let v = values[i];
    dx[i] = dy[i] * {{ each("slope") }};
}
{% endif %}
