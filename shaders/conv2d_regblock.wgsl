// Convolution with a large register block, for adapters whose loads are dear and whose barriers are dearer.
//
// Idea: one thread owns OB output channels of RB x PB output pixels. Each input value, once in a register, meets all taps and all
// OB channels before the next one is fetched, and each weight meets all RB x PB pixels. A software adapter gathers lane by lane,
// a vec4 of eight lanes costs as much as dozens of multiply-adds, so the ratio of loads to multiply-adds decides. Input (padded,
// see conv2d_pad.wgsl) and weights (see conv2d_repack.wgsl) are laid out so that all loads are vec4 without a bounds test.
// Neighbouring lanes take neighbouring channel blocks of the same pixels: they read the same input addresses. The template
// unrolls everything, so every accumulator is a named register. That is dear to compile, so the numbers of channels and images are set
// late: layers that differ in nothing else, and the two directions of one layer, share a pipeline.
{% set QB = OB // 4 %}
{% set Y_VEC = W_OUT % 4 == 0 and PB % 4 == 0 %}
{% set VECS = div_up((PB - 1) * STRIDE_W + (K_W - 1) * DIL_W + 1, 4) %}
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>; // [n][H_PAD][in][W_VEC]
@group(0) @binding(1) var<storage, read> w: array<vec4<f32>>; // [in][kh][kw][out], then the bias [out]
@group(0) @binding(2) var<storage, read_write> y: array<{{ "vec4<f32>" if Y_VEC else "f32" }}>;

const QB = OB / 4u;
const W_BLOCKS = (W_OUT + PB - 1u) / PB;
const H_BLOCKS = (H_OUT + RB - 1u) / RB;

{# The multiply-adds of one row of inputs v with row `kh` of the taps into row `r` of the block. #}
{% macro row_fma(r, kh) %}
{% for q in range(QB) %}{% for first in range(0, PB, 3) %}{% for kw in range(K_W) %}{% for p in range(first, [first + 3, PB] | min) %}{% set c = p * STRIDE_W + kw * DIL_W %}
a_{{ r }}_{{ p }}_{{ q }} = fma(w_{{ kh }}_{{ kw }}_{{ q }}, vec4(v_{{ c // 4 }}[{{ c % 4 }}]), a_{{ r }}_{{ p }}_{{ q }});
{% endfor %}{% endfor %}{% endfor %}{% endfor %}
{% endmacro %}

@compute @workgroup_size(8)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    // A thread too many repeats the last one's sums and stores nothing: no branch round the loops.
    let C_IN = late.C_IN;
    let C_BLOCKS = (late.C_OUT + OB - 1u) / OB;
    let THREADS = C_BLOCKS * W_BLOCKS * H_BLOCKS * late.N;
    let thread = id.y * late.ROW + id.x;
    let t = min(thread, THREADS - 1u);
    let block = t % C_BLOCKS;
    let ox = t / C_BLOCKS % W_BLOCKS * PB;
    let oy = t / (C_BLOCKS * W_BLOCKS) % H_BLOCKS * RB;
    let n = t / (C_BLOCKS * W_BLOCKS * H_BLOCKS);
    var base = (n * H_PAD + oy * STRIDE_H) * (C_IN * W_VEC) + ox * STRIDE_W / 4u;
    var taps = block * QB;
{% for r in range(RB) %}{% for p in range(PB) %}{% for q in range(QB) %}
    var a_{{ r }}_{{ p }}_{{ q }} = vec4<f32>();
{% endfor %}{% endfor %}{% endfor %}
    for (var ic = 0u; ic < C_IN; ic++) {
{% if UNROLL_H %}
    {% for kh in range(K_H) if RB > 1 %}{% for kw in range(K_W) %}{% for q in range(QB) %}
        let w_{{ kh }}_{{ kw }}_{{ q }} = w[taps + {{ kh * K_W + kw }}u * (C_BLOCKS * QB) + {{ q }}u];
    {% endfor %}{% endfor %}{% endfor %}
    {% for row in range((RB - 1) * STRIDE_H + (K_H - 1) * DIL_H + 1) if needed(row, RB, STRIDE_H, K_H, DIL_H) %}
        {
        {% for kw in range(K_W) if RB == 1 %}{% for q in range(QB) %}
            let w_{{ row // DIL_H }}_{{ kw }}_{{ q }} = w[taps + {{ row // DIL_H * K_W + kw }}u * (C_BLOCKS * QB) + {{ q }}u];
        {% endfor %}{% endfor %}
        {% for v in range(VECS) %}
            let v_{{ v }} = x[base + {{ row }}u * (C_IN * W_VEC) + {{ v }}u];
        {% endfor %}
        {% for r in range(RB) %}{% for kh in range(K_H) if r * STRIDE_H + kh * DIL_H == row %}
            {{ row_fma(r, kh) }}
        {% endfor %}{% endfor %}
        }
    {% endfor %}
{% else %}
        for (var kh = 0u; kh < K_H; kh++) {
    {% for kw in range(K_W) %}{% for q in range(QB) %}
            let w_0_{{ kw }}_{{ q }} = w[taps + (kh * K_W + {{ kw }}u) * (C_BLOCKS * QB) + {{ q }}u];
    {% endfor %}{% endfor %}
    {% for r in range(RB) %}
            {
        {% for v in range(VECS) %}
                let v_{{ v }} = x[base + ({{ r }}u * STRIDE_H + kh * DIL_H) * (C_IN * W_VEC) + {{ v }}u];
        {% endfor %}
                {{ row_fma(r, 0) }}
            }
    {% endfor %}
        }
{% endif %}
        base += W_VEC;
        taps += K_H * K_W * C_BLOCKS * QB;
    }
    if (thread >= THREADS) {
        return;
    }
    // Past all taps lies the bias.
{% for q in range(QB) %}
    let bias_{{ q }} = w[taps + {{ q }}u];
{% endfor %}
{% if RB == 1 and not UNROLL_H and not Y_VEC %}
    // A store is long once it is compiled: four of them in a loop, in the place of four for each pixel.
    var sums: array<vec4<f32>, PB>;
    {% for q in range(QB) %}
        {% for p in range(PB) %}
    sums[{{ p }}] = a_0_{{ p }}_{{ q }} + bias_{{ q }};
        {% endfor %}
    for (var p = 0u; p < PB; p++) {
        if (ox + p < W_OUT) {
            let sum = sums[p];
        {% for o in range(4) %}
            {{ "if (block * OB + %du < late.C_OUT) {" | format(q * 4 + o) if EDGE else "{" }}
                y[((n * late.C_OUT + block * OB + {{ q * 4 + o }}u) * H_OUT + oy) * W_OUT + ox + p] = sum[{{ o }}];
            }
        {% endfor %}
        }
    }
    {% endfor %}
{% else %}
{% for q in range(QB) %}{% for o in range(4) %}
    {
        let oc = block * OB + {{ q * 4 + o }}u;
    {% if EDGE %}
        if (oc < late.C_OUT) {
    {% else %}
        {
    {% endif %}
            let b = bias_{{ q }}[{{ o }}];
            let at = ((n * late.C_OUT + oc) * H_OUT + oy) * W_OUT + ox;
    {% for r in range(RB) %}
        {% if H_OUT % RB != 0 and r > 0 %}
            if (oy + {{ r }}u < H_OUT) {
        {% else %}
            {
        {% endif %}
        {% for p in range(0, PB, 4 if Y_VEC else 1) %}
            {% if W_OUT % PB != 0 and p > 0 %}
                if (ox + {{ p }}u < W_OUT)
            {% endif %}
                {
            {% if Y_VEC %}
                    y[(at + {{ r }}u * W_OUT + {{ p }}u) / 4u] =
                        vec4({% for i in range(p, p + 4) %}a_{{ r }}_{{ i }}_{{ q }}[{{ o }}], {% endfor %}) + b;
            {% else %}
                    y[at + {{ r }}u * W_OUT + {{ p }}u] = a_{{ r }}_{{ p }}_{{ q }}[{{ o }}] + b;
            {% endif %}
                }
        {% endfor %}
            }
    {% endfor %}
        }
    }
{% endfor %}{% endfor %}
{% endif %}
}
