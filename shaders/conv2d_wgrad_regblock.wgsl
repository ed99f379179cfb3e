// Weight gradient of a convolution with a large register block: dw[oc, ic, tap] = sum over pixels of dy[oc, pixel] x[ic, pixel + tap].
//
// Idea: one thread owns OB output channels x 4 input channels x KB rows of taps, and walks over the pixels in patches of
// RB x PB. Each vec4 of x meets all the taps that reach it and all OB channels before the next is fetched. Both tensors come with their
// channels innermost (see conv2d_nhwc.wgsl), so every load is an aligned vec4 without a bounds test. The images are dealt out to
// SPLITS partial sums, which conv2d_wgrad_gather.wgsl adds in a fixed order. They are stored as vec4s of output channels: a quarter of the
// stores, each of which is a loop over the lanes on a software adapter and costs compile time too. All sizes round the unrolled body
// are set late, so that layers of the same kernel size share a pipeline.
{% set QB = OB // 4 %}
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>; // [n][H_PAD][W_PAD][in]
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>; // [n][H_BLOCKS * RB][W_BLOCKS * PB][out]
@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>; // [SPLITS][in][kh][kw][out]

const QB = OB / 4u;
const TAP_BLOCKS = (K_H + KB - 1u) / KB;

@compute @workgroup_size(8)
fn weight_grad(@builtin(global_invocation_id) id: vec3<u32>) {
    // A thread too many repeats the last one's sums and stores nothing: no branch round the loops.
    let IN_VEC = (late.C_IN + 3u) / 4u;
    let OUT_BLOCKS = (late.C_OUT + OB - 1u) / OB;
    let OUT_VEC = OUT_BLOCKS * QB;
    let ITEMS = late.N * late.H_BLOCKS; // patches high, one row of patches each
    let THREADS = OUT_BLOCKS * IN_VEC * TAP_BLOCKS * late.SPLITS;
    let thread = id.y * late.ROW + id.x;
    let t = min(thread, THREADS - 1u);
    let ob = t % OUT_BLOCKS;
    let ib = t / OUT_BLOCKS % IN_VEC;
    let kh = t / (OUT_BLOCKS * IN_VEC) % TAP_BLOCKS * KB;
    let split = t / (OUT_BLOCKS * IN_VEC * TAP_BLOCKS);
{% for q in range(QB) %}{% for i in range(4) %}{% for h in range(KB) %}{% for kw in range(K_W) %}
    var a_{{ q }}_{{ i }}_{{ h }}_{{ kw }} = vec4<f32>();
{% endfor %}{% endfor %}{% endfor %}{% endfor %}
    let last = (split + 1u) * ITEMS / late.SPLITS;
    for (var item = split * ITEMS / late.SPLITS; item < last; item++) {
        let n = item / late.H_BLOCKS;
        let oy = item % late.H_BLOCKS * RB;
        var at_dy = (item * (RB * late.W_BLOCKS * PB)) * OUT_VEC + ob * QB;
        var at_x = (n * late.H_PAD + oy * STRIDE_H + kh * DIL_H) * late.W_PAD * IN_VEC + ib;
        for (var b = 0u; b < late.W_BLOCKS; b++) {
{% for r in range(RB) %}{% for p in range(PB) %}{% for q in range(QB) %}
            let d_{{ r }}_{{ p }}_{{ q }} = dy[at_dy + ({{ r }}u * (late.W_BLOCKS * PB) + {{ p }}u) * OUT_VEC + {{ q }}u];
{% endfor %}{% endfor %}{% endfor %}
{% for row in range((RB - 1) * STRIDE_H + (KB - 1) * DIL_H + 1) if needed(row, RB, STRIDE_H, KB, DIL_H) %}
            {
    {% for c in range((PB - 1) * STRIDE_W + (K_W - 1) * DIL_W + 1) if needed(c, PB, STRIDE_W, K_W, DIL_W) %}
                let v_{{ c }} = x[at_x + ({{ row }}u * late.W_PAD + {{ c }}u) * IN_VEC];
    {% endfor %}
    {% for r in range(RB) %}{% for h in range(KB) if r * STRIDE_H + h * DIL_H == row %}
        {% for q in range(QB) %}{% for i in range(4) %}{% for p in range(PB) %}{% for kw in range(K_W) %}
                a_{{ q }}_{{ i }}_{{ h }}_{{ kw }} = fma(d_{{ r }}_{{ p }}_{{ q }}, vec4(v_{{ p * STRIDE_W + kw * DIL_W }}[{{ i }}]), a_{{ q }}_{{ i }}_{{ h }}_{{ kw }});
        {% endfor %}{% endfor %}{% endfor %}{% endfor %}
    {% endfor %}{% endfor %}
            }
{% endfor %}
            at_dy += PB * OUT_VEC;
            at_x += PB * STRIDE_W * IN_VEC;
        }
    }
    if (thread >= THREADS) {
        return;
    }
{% for i in range(4) %}
    {
        let at = (((split * IN_VEC + ib) * 4u + {{ i }}u) * (TAP_BLOCKS * KB) + kh) * K_W * OUT_VEC + ob * QB;
    {% for q in range(QB) %}{% for h in range(KB) %}{% for kw in range(K_W) %}
        partial[at + {{ h * K_W + kw }}u * OUT_VEC + {{ q }}u] = a_{{ q }}_{{ i }}_{{ h }}_{{ kw }};
    {% endfor %}{% endfor %}{% endfor %}
    }
{% endfor %}
}
