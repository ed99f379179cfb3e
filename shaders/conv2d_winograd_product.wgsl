// Winograd, the products: m[i, tile] = sum over k of u[k, i] v[k, tile] for each of the T^2 points; for software adapters.
//
// Idea: the register block of linear_regblock.wgsl, on operands that were written in the order in which it reads them. One thread owns IB
// output channels of the 16 tiles of a block. Its slice of v is one unbroken run of 64 bytes a channel; neighbouring lanes take neighbouring
// channels of the same tiles. u of one point stays in the first-level cache. No value is out of range: all sizes are padded.
{% set QB = IB // 4 %}
@group(0) @binding(0) var<storage, read> u: array<vec4<f32>>; // [POINTS][K][OUT_PAD / 4]
@group(0) @binding(1) var<storage, read> v: array<vec4<f32>>; // [CHUNK][POINTS][K][4]
@group(0) @binding(2) var<storage, read_write> m: array<vec4<f32>>; // [CHUNK][POINTS][OUT_PAD][4]

@compute @workgroup_size(8)
fn product(@builtin(global_invocation_id) id: vec3<u32>) {
    let BLOCKS = late.OUT_PAD / IB;
    let THREADS = late.CHUNK * POINTS * BLOCKS;
    // A thread too many repeats the last one's sums and stores nothing: no branch round the loop.
    let thread = id.y * late.ROW + id.x;
    let t = min(thread, THREADS - 1u);
    let block = t % BLOCKS;
    let slice = t / BLOCKS; // chunk and point
    var at_u = slice % POINTS * (late.K * (late.OUT_PAD / 4u)) + block * {{ QB }}u;
    var at_v = slice * (late.K * 4u);
{% for i in range(IB) %}{% for q in range(4) %}
    var c_{{ i }}_{{ q }} = vec4<f32>();
{% endfor %}{% endfor %}
    for (var k = 0u; k < late.K; k += STEP) {
{% for s in range(STEP) %}
    {% for q in range(QB) %}
        let u_{{ s }}_{{ q }} = u[at_u + {{ s }}u * (late.OUT_PAD / 4u) + {{ q }}u];
    {% endfor %}
    {% for q in range(4) %}
        let v_{{ s }}_{{ q }} = v[at_v + {{ s * 4 + q }}u];
    {% endfor %}
{% endfor %}
{% for i in range(IB) %}{% for q in range(4) %}{% for s in range(STEP) %}
        c_{{ i }}_{{ q }} = fma(vec4(u_{{ s }}_{{ i // 4 }}[{{ i % 4 }}]), v_{{ s }}_{{ q }}, c_{{ i }}_{{ q }});
{% endfor %}{% endfor %}{% endfor %}
        at_u += {{ STEP }}u * (late.OUT_PAD / 4u);
        at_v += {{ STEP * 4 }}u;
    }
    if (thread >= THREADS) {
        return;
    }
    let out = (slice * late.OUT_PAD + block * IB) * 4u;
{% for i in range(IB) %}{% for q in range(4) %}
    m[out + {{ i * 4 + q }}u] = c_{{ i }}_{{ q }};
{% endfor %}{% endfor %}
}
