// Winograd convolution F(M x M, 3 x 3), the input: v = Bt d B for each tile d [T, T] of each channel, T = M + 2.
//
// Idea: M x M neighbouring outputs of a 3x3 convolution need 9 M^2 multiplications, but as polynomials evaluated at T points along each axis,
// multiplied there, and interpolated back, only T^2: 2.25 times fewer for M = 2, 4 times fewer for M = 4. Evaluation and interpolation are
// additions and multiplications by small constants, one pass over memory each. What is left in the middle is T^2 independent matrix
// products of [out x in] with [in x tiles], which run at the full speed of a product.
//   conv2d_winograd_filter.wgsl   w -> u            conv2d_winograd_product.wgsl (or _tiled)   u, v -> m
//   this page                     x -> v            conv2d_winograd_output.wgsl                m -> y
// The tiles come in blocks of 16, as 4 quads of neighbours in a row: one thread transforms a quad, one lane of a vec4 a tile. A block's values
// for one point and one channel are 64 contiguous bytes, and all channels of them follow each other, in the order in which the product reads.
// With DY, the weight gradient's other side: A dy At for each M x M tile of dy, the transpose of the output's transform.
// GATE says what a gradient passes on its way to the convolution's output, as in conv2d_subgroup.wgsl: 1 ReLU, 2 ReLU and a 2x2 max-pool.
{% import "lib/winograd.wgsl" as wino %}
{% set T = M + 2 %}
{% set WINDOW = M if DY else T %}
{% set MATRIX = wino.A[M] if DY else wino.BT[M] %}
{% set COLUMNS = 3 * M + WINDOW %}
{% set VEC = W % 4 == 0 %}
@group(0) @binding(0) var<storage, read> counter: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<{{ ("vec2<f32>" if GATE == 2 else "vec4<f32>") if VEC else "f32" }}>; // [n][c][H][W]; pooled where GATE is 2
{% if GATE == 1 %}
@group(0) @binding(2) var<storage, read> gate: array<{{ "vec4<f32>" if VEC else "f32" }}>;
{% elif GATE == 2 %}
@group(0) @binding(2) var<storage, read> gate: array<u32>; // [n][c][H / 2][W_CODES]
{% endif %}
@group(0) @binding({{ 3 if GATE else 2 }}) var<storage, read_write> v: array<vec4<f32>>; // [CHUNK][T * T][C_PAD][4]

{% if GATE == 2 %}
const W_CODES = (W / 2u + 3u) / 4u;
{% endif %}
@compute @workgroup_size(64)
fn input(@builtin(global_invocation_id) id: vec3<u32>) {
    let thread = id.y * ROW + id.x;
    if (id.x >= ROW || thread >= CHUNK * C_PAD * 4u) {
        return;
    }
    let quad = thread % 4u;
    let c = thread / 4u % C_PAD;
    let block = thread / (4u * C_PAD);
    let at = (counter[0] * CHUNK + block) * 4u + quad;
    let ox = at % ROW_QUADS * (4u * M);
    let oy = at / ROW_QUADS % TILE_ROWS * M;
    let n = at / (ROW_QUADS * TILE_ROWS);
    let exists = n < N{{ " && c < C" if C_PAD != C }};
    let plane = (n * C + c) * {{ "(H / 2u)" if GATE == 2 else "H" }};
    // Positions left of or above the image wrap round to huge numbers, so that one comparison tests both sides.
{% for r in range(WINDOW) %}
    {% for c in range(WINDOW) %}
    var d_{{ r }}_{{ c }}: vec4<f32>;
    {% endfor %}
    {
        let iy = oy + {{ r }}u - u32(PAD_H);
        let inside = exists && iy < {{ "H / 2u * 2u" if GATE == 2 else "H" }};
    {% if GATE == 2 %}
        let want = iy % 2u * 2u;
        let words = (plane + iy / 2u) * W_CODES;
    {% endif %}
    {% if VEC %}
        let first = ox / 4u - u32(LEAD);
        let row = (plane + iy{{ " / 2u" if GATE == 2 }}) * (W / 4u) + first;
        {% for q in range((COLUMNS - 1 + SHIFT) // 4 + 1) %}
        var q_{{ q }} = vec4<f32>();
        if (inside && first + {{ q }}u < W / 4u) {
            {% if GATE == 2 %}
            let code = gate[words + (first + {{ q }}u) / 2u] >> ((first + {{ q }}u) % 2u * 8u);
            let won = (vec4(code, code, code >> 4u, code >> 4u) & vec4(7u)) == vec4(want, want + 1u, want, want + 1u);
            q_{{ q }} = select(vec4<f32>(), x[row + {{ q }}u].xxyy, won);
            {% elif GATE == 1 %}
            q_{{ q }} = select(x[row + {{ q }}u], vec4<f32>(), gate[row + {{ q }}u] <= vec4<f32>());
            {% else %}
            q_{{ q }} = x[row + {{ q }}u];
            {% endif %}
        }
        {% endfor %}
        {% for c in range(WINDOW) %}
        d_{{ r }}_{{ c }} = vec4({% for t in range(4) %}{% set p = c + t * M + SHIFT %}q_{{ p // 4 }}[{{ p % 4 }}], {% endfor %});
        {% endfor %}
    {% else %}
        let first = ox - u32(PAD_W);
        let row = (plane + iy{{ " / 2u" if GATE == 2 }}) * {{ "(W / 2u)" if GATE == 2 else "W + first" }};
        {% for c in range(COLUMNS) %}
        var q_{{ c }} = 0.0;
        if (inside && first + {{ c }}u < {{ "W / 2u * 2u" if GATE == 2 else "W" }}) {
            {% if GATE == 2 %}
            let ix = first + {{ c }}u;
            let code = (gate[words + ix / 8u] >> (ix / 2u % 4u * 4u)) & 7u;
            q_{{ c }} = select(0.0, x[row + ix / 2u], code == want + ix % 2u);
            {% elif GATE == 1 %}
            q_{{ c }} = select(x[row + {{ c }}u], 0.0, gate[row + {{ c }}u] <= 0.0);
            {% else %}
            q_{{ c }} = x[row + {{ c }}u];
            {% endif %}
        }
        {% endfor %}
        {% for c in range(WINDOW) %}
        d_{{ r }}_{{ c }} = vec4({% for t in range(4) %}q_{{ c + t * M }}, {% endfor %});
        {% endfor %}
    {% endif %}
    }
{% endfor %}
    let out = (block * {{ T * T }}u * C_PAD + c) * 4u + quad;
{% for j in range(T) %}
    {
    {% for r in range(WINDOW) %}
        let t_{{ r }} = {{ wino.sum(MATRIX[j], "d_%d_" | format(r), "") }};
    {% endfor %}
    {% for i in range(T) %}
        v[out + {{ i * T + j }}u * (C_PAD * 4u)] = {{ wino.sum(MATRIX[i], "t_", "") }};
    {% endfor %}
    }
{% endfor %}
}
