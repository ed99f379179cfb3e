// Winograd, the products by subgroups: m[i, tile] = sum over k of u[k, i] v[k, tile] for each of the T^2 points.
//
// Idea: as in conv2d_subgroup.wgsl, what all LANES invocations of a subgroup need they fetch together, each another part, and hand it on with
// subgroupBroadcast. All of them work on the same 2 blocks of 16 tiles, each on four output channels of its own: 32 tiles of v are one vec4
// load for 8 lanes, four channels of u another, and the two feed 128 multiply-adds. STEP steps of k are taken at once, so that a sum that
// has no register of its own is fetched and put back once for all of them.
{% set SLOTS = STEP * 8 // LANES %}
@group(0) @binding(0) var<storage, read> u: array<vec4<f32>>; // [POINTS][K][OUT_PAD / 4]
@group(0) @binding(1) var<storage, read> v: array<vec4<f32>>; // [CHUNK][POINTS][K][4]
@group(0) @binding(2) var<storage, read_write> m: array<vec4<f32>>; // [CHUNK][POINTS][OUT_PAD][4]

@compute @workgroup_size(LANES)
fn product(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let BLOCKS = late.OUT_PAD / (4u * LANES);
    let TILES = late.CHUNK / 2u * POINTS * BLOCKS;
    // A workgroup too many repeats the last one's sums and stores nothing.
    let tile = group.y * late.ROW + group.x;
    let t = min(tile, TILES - 1u);
    let i = t % BLOCKS * LANES + lane;
    let point = t / BLOCKS % POINTS;
    let pair = t / (BLOCKS * POINTS);
    var at_u = point * late.K * (late.OUT_PAD / 4u) + i;
    // Slot s of a lane is element s * LANES + lane of [STEP][2 blocks][4].
{% for s in range(SLOTS) %}
    let e_{{ s }} = {{ s }}u * LANES + lane;
    var at_{{ s }} = ((pair * 2u + e_{{ s }} / 4u % 2u) * POINTS + point) * (late.K * 4u) + e_{{ s }} / 8u * 4u + e_{{ s }} % 4u;
{% endfor %}
{% for r in range(4) %}{% for q in range(8) %}
    var c_{{ r }}_{{ q }} = vec4<f32>();
{% endfor %}{% endfor %}
    for (var k = 0u; k < late.K; k += {{ STEP }}u) {
{% for s in range(SLOTS) %}
        let s_{{ s }} = v[at_{{ s }}];
        at_{{ s }} += {{ STEP * 4 }}u;
{% endfor %}
{% for s in range(STEP) %}
        let w_{{ s }} = u[at_u + {{ s }}u * (late.OUT_PAD / 4u)];
{% endfor %}
{% for q in range(8) %}
        {
    {% for s in range(STEP) %}{% set e = s * 8 + q %}
            let b_{{ s }} = subgroupBroadcast(s_{{ e // LANES }}, {{ e % LANES }}u);
    {% endfor %}
    {% for r in range(4) %}{% for s in range(STEP) %}
            c_{{ r }}_{{ q }} = fma(vec4(w_{{ s }}[{{ r }}]), b_{{ s }}, c_{{ r }}_{{ q }});
    {% endfor %}{% endfor %}
        }
{% endfor %}
        at_u += {{ STEP }}u * (late.OUT_PAD / 4u);
    }
    if (tile >= TILES) {
        return;
    }
{% for b in range(2) %}
    {
        let out = (((pair * 2u + {{ b }}u) * POINTS + point) * late.OUT_PAD + i * 4u) * 4u;
    {% for r in range(4) %}{% for q in range(4) %}
        m[out + {{ r * 4 + q }}u] = c_{{ r }}_{{ b * 4 + q }};
    {% endfor %}{% endfor %}
    }
{% endfor %}
}
