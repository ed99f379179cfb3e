// Bias gradient of convolution + ReLU (+ 2x2 max-pool): db[c] = sum of dy[n, c, i, j] where the gate is open, [N][C][H_D][W_D].
// Which pixel of a window won does not matter here, so the sum runs over the pooled gradient, a quarter of the convolution's.
{% set T = "vec4<f32>" if VEC else "f32" %}
@group(0) @binding(0) var<storage, read> dy: array<{{ T }}>;
@group(0) @binding(1) var<storage, read> gate: array<{{ "u32" if POOL else T }}>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;

const ROW_ELEMENTS = W_D / {{ 4 if VEC else 1 }}u;
const WORDS = (W_D + 3u) / 4u;

// The sum of one row of a plane.
fn row_sum(row: u32) -> f32 {
    var sum = {{ T }}();
    for (var i = 0u; i < ROW_ELEMENTS; i++) {
        let d = dy[row * ROW_ELEMENTS + i];
{% if POOL %}
    {% if VEC %}
        let word = gate[row * WORDS + i];
        sum += select(d, vec4<f32>(), (vec4(word, word >> 4u, word >> 8u, word >> 12u) & vec4(4u)) != vec4(0u));
    {% else %}
        sum += select(d, 0.0, ((gate[row * WORDS + i / 4u] >> (i % 4u * 4u)) & 4u) != 0u);
    {% endif %}
{% else %}
        sum += select(d, {{ T }}(), gate[row * ROW_ELEMENTS + i] <= {{ T }}());
{% endif %}
    }
    return {{ "sum.x + sum.y + (sum.z + sum.w)" if VEC else "sum" }};
}

{% if FIRST is defined %}
// One invocation a channel; the rows of all images from FIRST to LAST, as they lie [n][row].
@compute @workgroup_size(WG)
fn channels(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = id.y * GRID_X + id.x;
    if (c >= COUNT) {
        return;
    }
    var sum = 0.0;
    if (FIRST > 0u) {
        sum = sums[c];
    }
    for (var turn = FIRST; turn < LAST; turn++) {
        sum += row_sum((turn / H_D * C + c) * H_D + turn % H_D);
    }
    sums[c] = sum;
}
{% else %}
// One invocation a plane; sum_partials.wgsl adds the images in order.
@compute @workgroup_size(WG)
fn planes(@builtin(global_invocation_id) id: vec3<u32>) {
    let plane = id.y * GRID_X + id.x;
    if (plane >= COUNT) {
        return;
    }
    var sum = 0.0;
    for (var row = 0u; row < H_D; row++) {
        sum += row_sum(plane * H_D + row);
    }
    sums[plane] = sum;
}
{% endif %}
