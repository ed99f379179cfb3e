// Winograd, the products of the weight gradient by subgroups: s[i, c] = sum over tiles of d[i, tile] v[c, tile] for each of the T^2 points.
//
// Idea: as in conv2d_winograd_subgroup.wgsl. Each of the LANES invocations owns CB input channels; the IB output channels are the same for all, so
// they fetch them together, each another row, and hand the values on with subgroupBroadcast. Chunks and SPLITS as in conv2d_winograd_wgrad.wgsl.
{% set QB = CB // 4 %}
{% set SLOTS = IB // LANES %}
@group(0) @binding(0) var<storage, read> counter: array<u32>;
@group(0) @binding(1) var<storage, read> v: array<vec4<f32>>; // [CHUNK][POINTS][IN_PAD][4]
@group(0) @binding(2) var<storage, read> d: array<vec4<f32>>; // [CHUNK][POINTS][OUT_PAD][4]
@group(0) @binding(3) var<storage, read_write> sums: array<vec4<f32>>; // [SPLITS][POINTS][OUT_PAD][IN_PAD / 4]

@compute @workgroup_size(LANES)
fn weight_grad(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let IN_BLOCKS = late.IN_PAD / (CB * LANES);
    let OUT_BLOCKS = late.OUT_PAD / IB;
    let TILES = IN_BLOCKS * OUT_BLOCKS * POINTS * late.SPLITS;
    // A workgroup too many repeats the last one's sums and stores nothing.
    let tile = group.y * late.ROW + group.x;
    let t = min(tile, TILES - 1u);
    let ib = t % IN_BLOCKS * LANES + lane;
    let ob = t / IN_BLOCKS % OUT_BLOCKS;
    let point = t / (IN_BLOCKS * OUT_BLOCKS) % POINTS;
    let split = t / (IN_BLOCKS * OUT_BLOCKS * POINTS);
{% for i in range(IB) %}{% for q in range(QB) %}
    var s_{{ i }}_{{ q }} = vec4<f32>();
{% endfor %}{% endfor %}
    let last = (split + 1u) * late.CHUNK / late.SPLITS;
    for (var block = split * late.CHUNK / late.SPLITS; block < last; block++) {
        let at_v = ((block * POINTS + point) * late.IN_PAD + ib * CB) * 4u;
        let at_d = ((block * POINTS + point) * late.OUT_PAD + ob * IB + lane) * 4u;
        for (var quad = 0u; quad < 4u; quad++) {
{% for c in range(CB) %}
            let v_{{ c }} = v[at_v + quad + {{ c * 4 }}u];
{% endfor %}
{% for s in range(SLOTS) %}
            let d_{{ s }} = d[at_d + quad + {{ s * LANES * 4 }}u];
{% endfor %}
{% for i in range(IB) %}
            {
                let b = subgroupBroadcast(d_{{ i // LANES }}, {{ i % LANES }}u);
    {% for s in range(4) %}{% for q in range(QB) %}
                s_{{ i }}_{{ q }} = fma(vec4(b[{{ s }}]), vec4({% for c in range(q * 4, q * 4 + 4) %}v_{{ c }}[{{ s }}], {% endfor %}), s_{{ i }}_{{ q }});
    {% endfor %}{% endfor %}
            }
{% endfor %}
        }
    }
    if (tile >= TILES) {
        return;
    }
    let out = ((split * POINTS + point) * late.OUT_PAD + ob * IB) * (late.IN_PAD / 4u) + ib * {{ QB }}u;
    if (counter[0] == 0u) {
{% for i in range(IB) %}{% for q in range(QB) %}
        sums[out + {{ i }}u * (late.IN_PAD / 4u) + {{ q }}u] = s_{{ i }}_{{ q }};
{% endfor %}{% endfor %}
    } else {
{% for i in range(IB) %}{% for q in range(QB) %}
        sums[out + {{ i }}u * (late.IN_PAD / 4u) + {{ q }}u] += s_{{ i }}_{{ q }};
{% endfor %}{% endfor %}
    }
}
