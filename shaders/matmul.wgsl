// Matrix product, plainly: one invocation an element of y = op(a) op(b) + bias.
//
//   y[i,j] = sum over k of A[i,k] * B[k,j]  (+ bias[j])
//
// y is [M, N]. a is [M, K], or [K, M] where TA; b is [K, N], or [N, K] where TB. A linear layer is TB with a bias; its
// gradients are the other two ways to transpose.

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// Distance in memory between neighbours along each axis.
const A_ROW: u32 = select(K, 1u, TA);
const A_STEP: u32 = select(1u, M, TA);
const B_COLUMN: u32 = select(1u, K, TB);
const B_STEP: u32 = select(N, 1u, TB);

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let i = e / N;
    let j = e % N;
    // Sums of 64 products join the total, which keeps the rounding error of long sums small.
    // A dispatch adds the blocks FIRST to LAST; where those are not all, further ones add the rest to what is there.
    var sum = 0.0;
    if (FIRST > 0u) {
        sum = y[e];
    }
    for (var block = FIRST; block < LAST; block++) {
        var part = 0.0;
        for (var k = 64u * block; k < min(64u * block + 64u, K); k++) {
            part += a[i * A_ROW + k * A_STEP] * b[j * B_COLUMN + k * B_STEP];
        }
        sum += part;
    }
    if (BIAS && FIRST == 0u) {
        sum += bias[j];
    }
    y[e] = sum;
}
