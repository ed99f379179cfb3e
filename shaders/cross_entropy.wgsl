// Cross-entropy of logits x [N, C] with the classes t [N], weighted by w [C] where WEIGHTED. LABEL = 1 - smoothing is the
// share of the label, SPREAD = smoothing / C that of each class.
//
//   a[n,c] = w[c] * (LABEL where c = t[n], + SPREAD),   loss = sum over n,c of -a[n,c] * log softmax(x[n])[c]
//   where MEAN divided by D = sum over n of w[t[n]]
//
// A label past the last class counts as the last class: nothing is read out of place.

const LOWEST: f32 = -3.4028234e38;   // from here a maximum begins; from -inf, -inf - -inf would be NaN

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> t: array<u32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;

fn weight(class_: u32) -> f32 {
    if (WEIGHTED) {
        return w[class_];
    }
    return 1.0;
}

// log(sum of exp(x)) of the row that begins at `first`, the maximum taken out.
fn log_sum_exp(first: u32) -> f32 {
    var most = LOWEST;
    for (var c = 0u; c < C; c++) {
        most = max(most, x[first + c]);
    }
    var sum = 0.0;
    for (var c = 0u; c < C; c++) {
        sum += exp(x[first + c] - most);
    }
    return most + log(sum);
}

// --------------------------------------------------------------------------------------------------- forward: x, t, w -> y
@group(0) @binding(3) var<storage, read_write> parts: array<vec2<f32>>;

// partial: (loss, weight) of the rows p, p + PARTS, p + 2 PARTS, ...
@compute @workgroup_size(WG)
fn partial(@builtin(global_invocation_id) id: vec3<u32>) {
    let p = id.y * GRID_X + id.x;
    if (p >= COUNT) {
        return;
    }
    var sum = vec2(0.0, 0.0);
    for (var n = p; n < N; n += PARTS) {
        let label = min(t[n], C - 1u);
        let norm = log_sum_exp(n * C);
        var loss = LABEL * weight(label) * (norm - x[n * C + label]);
        if (SPREAD > 0.0) {
            var spread = 0.0;
            for (var c = 0u; c < C; c++) {
                spread += weight(c) * (norm - x[n * C + c]);
            }
            loss += SPREAD * spread;
        }
        sum += vec2(loss, weight(label));
    }
    parts[p] = sum;
}

@group(0) @binding(0) var<storage, read> parts_0: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

// total: one invocation adds the partial sums up, in order
@compute @workgroup_size(WG)
fn total(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.y * GRID_X + id.x >= COUNT) {
        return;
    }
    var sum = vec2(0.0, 0.0);
    for (var p = 0u; p < PARTS; p++) {
        sum += parts_0[p];
    }
    if (MEAN) {
        y[0] = sum.x / sum.y;
    } else {
        y[0] = sum.x;
    }
}

// ------------------------------------------------------------------------------ gradient: x, t, w, dy, (t, w -> D) -> dx
//   dx[n,c] = dy / D * (softmax(x[n])[c] * sum over j of a[n,j] - a[n,c])
// First D, where it is a sum of weights; then one invocation a row.
@group(0) @binding(0) var<storage, read> t_0: array<u32>;
@group(0) @binding(1) var<storage, read> w_1: array<f32>;
@group(0) @binding(2) var<storage, read_write> weight_parts: array<f32>;

@compute @workgroup_size(WG)
fn weight_partial(@builtin(global_invocation_id) id: vec3<u32>) {
    let p = id.y * GRID_X + id.x;
    if (p >= COUNT) {
        return;
    }
    var sum = 0.0;
    for (var n = p; n < N; n += PARTS) {
        sum += w_1[min(t_0[n], C - 1u)];
    }
    weight_parts[p] = sum;
}

@group(0) @binding(0) var<storage, read> weight_parts_0: array<f32>;
@group(0) @binding(1) var<storage, read_write> weight_sum: array<f32>;

@compute @workgroup_size(WG)
fn weight_total(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.y * GRID_X + id.x >= COUNT) {
        return;
    }
    var sum = 0.0;
    for (var p = 0u; p < PARTS; p++) {
        sum += weight_parts_0[p];
    }
    weight_sum[0] = sum;
}

@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read> divisor: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(WG)
fn gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let n = id.y * GRID_X + id.x;
    if (n >= COUNT) {
        return;
    }
    var factor = dy[0];
    if (MEAN) {
        if (WEIGHTED) {
            factor /= divisor[0];
        } else {
            factor /= f32(N);
        }
    }
    let label = min(t[n], C - 1u);
    let norm = log_sum_exp(n * C);
    var all_weights = f32(C);
    if (WEIGHTED && SPREAD > 0.0) {
        all_weights = 0.0;
        for (var c = 0u; c < C; c++) {
            all_weights += weight(c);
        }
    }
    let shares = LABEL * weight(label) + SPREAD * all_weights;
    for (var c = 0u; c < C; c++) {
        let share = weight(c) * select(SPREAD, SPREAD + LABEL, c == label);
        dx[n * C + c] = factor * (exp(x[n * C + c] - norm) * shares - share);
    }
}
