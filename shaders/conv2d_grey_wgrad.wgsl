// Weight gradient of a convolution with one input channel (grey images): OB x K_H x K_W sums a thread.
//
// Idea: with one input channel the work is reading dy once, there are only a few multiply-adds for each value. So a thread holds all taps
// of OB output channels, reads dy where it lies (no copy with its channels turned round, which would cost as much as the gradient
// itself), and meets each value with all taps while it is in a register. x, small, comes padded (conv2d_pad.wgsl). Each thread takes
// LINES rows of one image; sum_partials.wgsl adds the partial sums in a fixed order.
{% set DY_VEC = W_OUT % 4 == 0 %}
{% set VECS = div_up(3 * STRIDE_W + (K_W - 1) * DIL_W + 1, 4) %}
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>; // [n][H_PAD][W_VEC]
@group(0) @binding(1) var<storage, read> dy: array<{{ "vec4<f32>" if DY_VEC else "f32" }}>;
@group(0) @binding(2) var<storage, read_write> dw: array<f32>; // [N * CHUNKS][C_OUT][K_H * K_W]

const C_BLOCKS = (C_OUT + OB - 1u) / OB;
const CHUNKS = (H_OUT + LINES - 1u) / LINES;
const QUADS = (W_OUT + 3u) / 4u;
const THREADS = N * CHUNKS * C_BLOCKS;

@compute @workgroup_size(8)
fn weight_grad(@builtin(global_invocation_id) id: vec3<u32>) {
    // A thread too many repeats the last one's sums and stores nothing: no branch round the loops.
    let thread = id.y * ROW + id.x;
    let t = min(thread, THREADS - 1u);
    let oc = t % C_BLOCKS * OB;
    let split = t / C_BLOCKS;
    let n = split / CHUNKS;
{% for o in range(OB) %}
    let plane_{{ o }} = (n * C_OUT + min(oc + {{ o }}u, C_OUT - 1u)) * H_OUT;
    {% for k in range(K_H * K_W) %}
    var a_{{ o }}_{{ k }} = 0.0;
    {% endfor %}
{% endfor %}
    let last = min((split % CHUNKS + 1u) * LINES, H_OUT);
    for (var oy = split % CHUNKS * LINES; oy < last; oy++) {
        for (var quad = 0u; quad < QUADS; quad++) {
            let at_x = (n * H_PAD + oy * STRIDE_H) * W_VEC + quad * STRIDE_W;
{% for o in range(OB) %}
    {% if DY_VEC %}
            let d_{{ o }} = dy[(plane_{{ o }} + oy) * QUADS + quad];
    {% else %}
            let at_{{ o }} = (plane_{{ o }} + oy) * W_OUT;
            let d_{{ o }} = vec4(
        {% for p in range(4) %}
                select(0.0, dy[at_{{ o }} + min(quad * 4u + {{ p }}u, W_OUT - 1u)], quad * 4u + {{ p }}u < W_OUT),
        {% endfor %}
            );
    {% endif %}
{% endfor %}
{% for kh in range(K_H) %}
            {
    {% for v in range(VECS) %}
                let v_{{ v }} = x[at_x + {{ kh }}u * DIL_H * W_VEC + {{ v }}u];
    {% endfor %}
    {% for o in range(OB) %}{% for p in range(4) %}{% for kw in range(K_W) %}{% set c = p * STRIDE_W + kw * DIL_W %}
                a_{{ o }}_{{ kh * K_W + kw }} = fma(d_{{ o }}[{{ p }}], v_{{ c // 4 }}[{{ c % 4 }}], a_{{ o }}_{{ kh * K_W + kw }});
    {% endfor %}{% endfor %}{% endfor %}
            }
{% endfor %}
        }
    }
    if (thread >= THREADS) {
        return;
    }
{% for o in range(OB) %}
    if (oc + {{ o }}u < C_OUT) {
        let at = (split * C_OUT + oc + {{ o }}u) * (K_H * K_W);
    {% for k in range(K_H * K_W) %}
        dw[at + {{ k }}u] = a_{{ o }}_{{ k }};
    {% endfor %}
    }
{% endfor %}
}
