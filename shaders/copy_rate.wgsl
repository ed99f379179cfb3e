// How many bytes a second: x is copied to y, or added up, four numbers at a time.
//
// An invocation takes EACH items of 16 bytes. They lie either side by side, which suits a CPU's caches, or a whole row of
// invocations apart (APART), so that neighbouring invocations read neighbouring memory, which suits a GPU. The bench tries
// several; the grid is folded into two axes.

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

fn place(e: u32, i: u32) -> u32 {
    {% if APART %}return i * COUNT + e;{% else %}return e * EACH + i;{% endif %}
}

@compute @workgroup_size(WG)
fn copy(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    {%- for i in range(EACH) %}
    let v{{ i }} = x[place(e, {{ i }}u)];
    {%- endfor %}
    {%- for i in range(EACH) %}
    y[place(e, {{ i }}u)] = v{{ i }};
    {%- endfor %}
}

@compute @workgroup_size(WG)
fn sum(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    {%- for i in range(EACH) %}
    let v{{ i }} = x[place(e, {{ i }}u)];
    {%- endfor %}
    var sum = v0;
    {%- for i in range(1, EACH) %}
    sum += v{{ i }};
    {%- endfor %}
    y[e] = sum;
}
