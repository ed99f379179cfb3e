// Matrix product c[i, j] = sum_k a(i, k) b(j, k), one pipeline for all three directions of a linear layer and for all sizes.
//
// Idea: where every pipeline is compiled anew on each visit and by the CPU (a browser without a GPU), compiling costs more than the
// products of a small layer. So nothing but the block is in the text: 4 x 4 of c for a thread, 4 steps of k at a time, which is two loads of four
// vec4. Whether k is the fast axis of a (late.A_ALONG) or of b is a matter of strides, and of transposing four vec4 in registers:
//   forward         y[n, m]  = sum_k x[n, k] w[m, k]     both along
//   input gradient  dx[n, k] = sum_m dy[n, m] w[m, k]    dy along, w across
//   weight gradient dw[m, k] = sum_n dy[n, m] x[n, k]    both across
// I, J and K are multiples of 4. As in linear_regblock.wgsl, k is dealt out to SPLITS partial sums, which sum_partials.wgsl adds in a fixed
// order.
@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> c: array<vec4<f32>>; // [SPLITS][I][J]

@compute @workgroup_size(8)
fn matmul(@builtin(global_invocation_id) id: vec3<u32>) {
    // A thread too many repeats the last one's sums and stores nothing: no branch round the loop.
    let i_blocks = late.I / 4u;
    let j_blocks = late.J / 4u;
    let threads = i_blocks * j_blocks * late.SPLITS;
    let thread = id.y * late.ROW + id.x;
    let t = min(thread, threads - 1u);
    let j = t % j_blocks;
    let i = t / j_blocks % i_blocks;
    let split = t / (j_blocks * i_blocks);
    // Of each operand: from one of the four vec4 to the next, and from four steps of k to the next four.
    let a_along = late.A_ALONG == 1u;
    let b_along = late.B_ALONG == 1u;
    let a_next = select(late.I, late.K, a_along) / 4u;
    let b_next = select(late.J, late.K, b_along) / 4u;
    let a_step = select(late.I, 1u, a_along);
    let b_step = select(late.J, 1u, b_along);
    let first = split * late.CHUNK;
    var a_at = select(i, i * late.K, a_along) + first / 4u * a_step;
    var b_at = select(j, j * late.K, b_along) + first / 4u * b_step;

    var c_0 = vec4<f32>();
    var c_1 = vec4<f32>();
    var c_2 = vec4<f32>();
    var c_3 = vec4<f32>();
    let last = min(first + late.CHUNK, late.K);
    for (var k = first; k < last; k += 4u) {
        // Column r of rows: four steps of k of row r of the block. Column s of columns: step s of k of its four columns.
        var rows = mat4x4(a[a_at], a[a_at + a_next], a[a_at + 2u * a_next], a[a_at + 3u * a_next]);
        var columns = mat4x4(b[b_at], b[b_at + b_next], b[b_at + 2u * b_next], b[b_at + 3u * b_next]);
        if (!a_along) {
            rows = transpose(rows);
        }
        if (b_along) {
            columns = transpose(columns);
        }
{% for r in range(4) %}{% for s in range(4) %}
        c_{{ r }} = fma(columns[{{ s }}], vec4(rows[{{ r }}][{{ s }}]), c_{{ r }});
{% endfor %}{% endfor %}
        a_at += a_step;
        b_at += b_step;
    }
    if (thread >= threads) {
        return;
    }
    let at = (split * late.I + i * 4u) * j_blocks + j;
{% for r in range(4) %}
    c[at + {{ r }}u * j_blocks] = c_{{ r }};
{% endfor %}
}
