// Winograd, the products of the weight gradient: s[i, c] = sum over tiles of d[i, tile] v[c, tile] for each of the T^2 points, with v the
// transform of x (conv2d_winograd_input.wgsl) and d that of dy; conv2d_winograd_wgrad_end.wgsl interpolates back to 3x3 taps.
//
// Idea: the forward pass with its roles turned round (the transpose of the same bilinear form), so it saves the same share of the
// multiplications. The long sum over pixels runs along the tiles, four with each vec4. One thread owns IB output channels x CB input channels
// of one point; what it read is used CB or IB times. Chunks follow each other and add to the same sums, so their order is fixed, and each is a short
// sum of its own, which keeps the rounding error small. Where the channels are few, SPLITS sums share a chunk.
{% set QB = CB // 4 %}
@group(0) @binding(0) var<storage, read> counter: array<u32>;
@group(0) @binding(1) var<storage, read> v: array<vec4<f32>>; // [CHUNK][POINTS][IN_PAD][4]
@group(0) @binding(2) var<storage, read> d: array<vec4<f32>>; // [CHUNK][POINTS][OUT_PAD][4]
@group(0) @binding(3) var<storage, read_write> sums: array<vec4<f32>>; // [SPLITS][POINTS][OUT_PAD][IN_PAD / 4]

@compute @workgroup_size(8)
fn weight_grad(@builtin(global_invocation_id) id: vec3<u32>) {
    let IN_BLOCKS = late.IN_PAD / CB;
    let OUT_BLOCKS = late.OUT_PAD / IB;
    let THREADS = IN_BLOCKS * OUT_BLOCKS * POINTS * late.SPLITS;
    // A thread too many repeats the last one's sums and stores nothing: no branch round the loops.
    let thread = id.y * late.ROW + id.x;
    let t = min(thread, THREADS - 1u);
    let ib = t % IN_BLOCKS;
    let ob = t / IN_BLOCKS % OUT_BLOCKS;
    let point = t / (IN_BLOCKS * OUT_BLOCKS) % POINTS;
    let split = t / (IN_BLOCKS * OUT_BLOCKS * POINTS);
{% for i in range(IB) %}{% for q in range(QB) %}
    var s_{{ i }}_{{ q }} = vec4<f32>();
{% endfor %}{% endfor %}
    let last = (split + 1u) * late.CHUNK / late.SPLITS;
    for (var block = split * late.CHUNK / late.SPLITS; block < last; block++) {
        let at_v = ((block * POINTS + point) * late.IN_PAD + ib * CB) * 4u;
        let at_d = ((block * POINTS + point) * late.OUT_PAD + ob * IB) * 4u;
        for (var quad = 0u; quad < 4u; quad++) {
{% for c in range(CB) %}
            let v_{{ c }} = v[at_v + quad + {{ c * 4 }}u];
{% endfor %}
{% for i in range(IB) %}
            let d_{{ i }} = d[at_d + quad + {{ i * 4 }}u];
    {% for s in range(4) %}{% for q in range(QB) %}
            s_{{ i }}_{{ q }} = fma(vec4(d_{{ i }}[{{ s }}]), vec4({% for c in range(q * 4, q * 4 + 4) %}v_{{ c }}[{{ s }}], {% endfor %}), s_{{ i }}_{{ q }});
    {% endfor %}{% endfor %}
{% endfor %}
        }
    }
    if (thread >= THREADS) {
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
