// Implicit matrix product c[i, j] = sum_k a(i, k) b(k, j), tiled in workgroup memory: for adapters with real GPUs behind them.
//
// Idea: 256 threads share a tile of 64 Q x 64 Q results and walk along k in steps of 16 / Q. Each value is fetched from memory once for a
// tile and then read 64 Q times from workgroup memory; each thread keeps 4 Q x 4 Q results in registers, so that one vec4 read from
// workgroup memory feeds 4 Q multiply-adds. Convolution is the same product with other index functions; its matrix of patches is
// never written out. Where c is small, k is split over workgroups (z), and sum_partials.wgsl adds the parts in a fixed order.
//   MODE 0  convolution         i = output channel, j = (n, oy, ox),   k = (ic, kh, kw)
//   MODE 1  its input gradient  i = input channel,  j = (n, iy, ix),   k = (oc, kh, kw)
//   MODE 2  its weight gradient i = output channel, j = (ic, kh, kw),  k = (n, oy, ox)
//   MODE 3  linear layers       k or the other index may be the fast one of a and of b (A_ALONG, B_ALONG: k is)
// A_ALONG also says how the lanes are dealt out when a tile is fetched: neighbours always read neighbouring addresses.
{% set A_VEC = MODE == 3 and not A_ALONG and I % 4 == 0 %}
{% set B_VEC = MODE == 3 and not B_ALONG and J % 4 == 0 %}
@group(0) @binding(0) var<storage, read> a: array<{{ "vec4<f32>" if A_VEC else "f32" }}>;
@group(0) @binding(1) var<storage, read> b: array<{{ "vec4<f32>" if B_VEC else "f32" }}>;
{% if BIAS %}
@group(0) @binding(2) var<storage, read> bias: array<f32>;
{% endif %}
@group(0) @binding({{ 3 if BIAS else 2 }}) var<storage, read_write> c: array<f32>; // [SPLITS] times the result

const DEPTH = 16u / Q; // steps of k in a tile: one vec4 a thread, some 8.5 KiB for both tiles
const QUADS = 16u * Q; // vec4s in a row of a tile
const PITCH = QUADS + 1u; // one more: threads that write one column hit different banks
var<workgroup> tile_a: array<vec4<f32>, DEPTH * PITCH>;
var<workgroup> tile_b: array<vec4<f32>, DEPTH * PITCH>;

{% if MODE < 3 %}
const TAPS = K_H * K_W;
{% endif %}
{% if MODE == 0 or MODE == 2 %}
// The input value that tap `tap` of channel `ic` meets at output pixel `at` = (n, oy, ox); zero outside the image.
fn meets(at: u32, ic: u32, tap: u32) -> f32 {
    // Positions left of or above the image wrap round to huge numbers, so that one comparison tests both sides.
    let ix = at % W_OUT * STRIDE_W + tap % K_W * DIL_W - PAD_W;
    let iy = at / W_OUT % H_OUT * STRIDE_H + tap / K_W * DIL_H - PAD_H;
    if (ix >= W_IN || iy >= H_IN) {
        return 0.0;
    }
    return {{ "b" if MODE == 0 else "a" }}[((at / (W_OUT * H_OUT) * C_IN + ic) * H_IN + iy) * W_IN + ix];
}
{% endif %}
{% if MODE == 0 %}
fn load_a(i: u32, k: u32) -> f32 { return a[i * K + k]; }
fn load_b(k: u32, j: u32) -> f32 { return meets(j, k / TAPS, k % TAPS); }
fn place(i: u32, j: u32) -> u32 { return (j / (H_OUT * W_OUT) * C_OUT + i) * (H_OUT * W_OUT) + j % (H_OUT * W_OUT); }
{% elif MODE == 1 %}
fn load_a(i: u32, k: u32) -> f32 { return a[(k / TAPS * C_IN + i) * TAPS + k % TAPS]; }
fn load_b(k: u32, j: u32) -> f32 {
    // Which output pixel met this input pixel through this tap: none where the stride does not hit it.
    let x = j % W_IN + PAD_W - k % K_W * DIL_W;
    let y = j / W_IN % H_IN + PAD_H - k / K_W % K_H * DIL_H;
    if (x % STRIDE_W != 0u || y % STRIDE_H != 0u || x / STRIDE_W >= W_OUT || y / STRIDE_H >= H_OUT) {
        return 0.0;
    }
    return b[((j / (W_IN * H_IN) * C_OUT + k / TAPS) * H_OUT + y / STRIDE_H) * W_OUT + x / STRIDE_W];
}
fn place(i: u32, j: u32) -> u32 { return (j / (H_IN * W_IN) * C_IN + i) * (H_IN * W_IN) + j % (H_IN * W_IN); }
{% elif MODE == 2 %}
fn load_a(i: u32, k: u32) -> f32 { return b[(k / (H_OUT * W_OUT) * C_OUT + i) * (H_OUT * W_OUT) + k % (H_OUT * W_OUT)]; }
fn load_b(k: u32, j: u32) -> f32 { return meets(k, j / TAPS, j % TAPS); }
fn place(i: u32, j: u32) -> u32 { return i * J + j; }
{% else %}
    {% if not A_VEC %}
fn load_a(i: u32, k: u32) -> f32 { return a[{{ "i * K + k" if A_ALONG else "k * I + i" }}]; }
    {% endif %}
    {% if not B_VEC %}
fn load_b(k: u32, j: u32) -> f32 { return b[{{ "j * K + k" if B_ALONG else "k * J + j" }}]; }
    {% endif %}
fn place(i: u32, j: u32) -> u32 { return i * J + j; }
{% endif %}

{# Fetches one vec4 along i (j) at one k of the tile, into `v`. #}
{% macro fetch(side, size, vec, call) %}
            var v = vec4<f32>();
            let k = k0 + depth;
            let at = {{ side }}0 + quad * 4u;
            if (k < last) {
    {% if vec %}
                if (at < {{ size }}) {
                    v = {{ "a" if side == "i" else "b" }}[(k * {{ size }} + at) / 4u];
                }
    {% else %}
        {% for r in range(4) %}
                if (at + {{ r }}u < {{ size }}) {
                    v[{{ r }}] = {{ call | replace("AT", "at + %du" | format(r)) }};
                }
        {% endfor %}
    {% endif %}
            }
{% endmacro %}
@compute @workgroup_size(256)
fn matmul(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // The tiles are folded into two axes of the grid; a workgroup too many has nothing to do.
    let tile = group.y * ROW + group.x;
    if (tile >= TILES_I * TILES_J) {
        return;
    }
    let i0 = tile / TILES_J * (64u * Q);
    let j0 = tile % TILES_J * (64u * Q);
    let tx = local % 16u;
    let ty = local / 16u;
    let last = min((group.z + 1u) * CHUNK, K);
{% for qi in range(Q) %}{% for qj in range(Q) %}{% for r in range(4) %}
    var c_{{ qi }}_{{ qj }}_{{ r }} = vec4<f32>();
{% endfor %}{% endfor %}{% endfor %}
    for (var k0 = group.z * CHUNK; k0 < last; k0 += DEPTH) {
        {
            let depth = {{ "local % DEPTH" if A_ALONG else "local / QUADS" }};
            let quad = {{ "local / DEPTH" if A_ALONG else "local % QUADS" }};
            {{ fetch("i", "I", A_VEC, "load_a(AT, k)") }}
            tile_a[depth * PITCH + quad] = v;
        }
        {
            let depth = {{ "local % DEPTH" if B_ALONG else "local / QUADS" }};
            let quad = {{ "local / DEPTH" if B_ALONG else "local % QUADS" }};
            {{ fetch("j", "J", B_VEC, "load_b(k, AT)") }}
            tile_b[depth * PITCH + quad] = v;
        }
        workgroupBarrier();
        for (var d = 0u; d < DEPTH; d++) {
{% for q in range(Q) %}
            let a_{{ q }} = tile_a[d * PITCH + {{ q * 16 }}u + ty];
            let b_{{ q }} = tile_b[d * PITCH + {{ q * 16 }}u + tx];
{% endfor %}
{% for qi in range(Q) %}{% for qj in range(Q) %}{% for r in range(4) %}
            c_{{ qi }}_{{ qj }}_{{ r }} = fma(vec4(a_{{ qi }}[{{ r }}]), b_{{ qj }}, c_{{ qi }}_{{ qj }}_{{ r }});
{% endfor %}{% endfor %}{% endfor %}
        }
        workgroupBarrier();
    }
{% for qi in range(Q) %}{% for r in range(4) %}
    {
        let i = i0 + {{ qi * 64 + r }}u + ty * 4u;
        if (i < I) {
    {% for qj in range(Q) %}{% for s in range(4) %}
            {
                let j = j0 + {{ qj * 64 + s }}u + tx * 4u;
                if (j < J) {
                    c[group.z * (I * J) + place(i, j)] = c_{{ qi }}_{{ qj }}_{{ r }}[{{ s }}]{{ (" + bias[%s]" | format("j" if MODE == 3 else "i")) if BIAS }};
                }
            }
    {% endfor %}{% endfor %}
        }
    }
{% endfor %}{% endfor %}
}
