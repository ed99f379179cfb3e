// softmax and log_softmax of long rows in three dispatches. The idea: few long rows leave a device idle, so PARTS invocations
// share each row, neighbours reading neighbouring elements; a second dispatch combines their results in order, and a third
// has one invocation an element. Which elements go into which partial result depends on the shape alone.

const LOWEST: f32 = -3.4028234e38;   // from here a maximum begins; from -inf, -inf - -inf would be NaN

// The first element of row r.
fn first_of(r: u32) -> u32 {
    return (r / INNER) * LEN * INNER + r % INNER;
}

// The row that element e belongs to.
fn row_of(e: u32) -> u32 {
    return (e / (LEN * INNER)) * INNER + e % INNER;
}

// ------------------------------------------------------------------------------------------------------- forward: x -> y
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> parts: array<vec2<f32>>;

// partial: (m, sum of exp(x[k] - m)) of the elements p, p + PARTS, p + 2 PARTS, ... of row r; m is their maximum
@compute @workgroup_size(WG)
fn partial(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let first = first_of(i / PARTS);
    var most = LOWEST;
    for (var k = i % PARTS; k < LEN; k += PARTS) {
        most = max(most, x[first + k * INNER]);
    }
    var sum = 0.0;
    for (var k = i % PARTS; k < LEN; k += PARTS) {
        sum += exp(x[first + k * INNER] - most);
    }
    parts[i] = vec2(most, sum);
}

@group(0) @binding(0) var<storage, read> parts_0: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read_write> totals: array<vec2<f32>>;

// total: the maximum and the sum of row r; a partial sum counts exp(its maximum - the row's) times
@compute @workgroup_size(WG)
fn total(@builtin(global_invocation_id) id: vec3<u32>) {
    let r = id.y * GRID_X + id.x;
    if (r >= COUNT) {
        return;
    }
    var most = LOWEST;
    for (var p = 0u; p < PARTS; p++) {
        most = max(most, parts_0[r * PARTS + p].x);
    }
    var sum = 0.0;
    for (var p = 0u; p < PARTS; p++) {
        let part = parts_0[r * PARTS + p];
        sum += part.y * exp(part.x - most);
    }
    totals[r] = vec2(most, sum);
}

@group(0) @binding(1) var<storage, read> totals_1: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn finish(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let row = totals_1[row_of(e)];
    if (LOG) {
        y[e] = x[e] - row.x - log(row.y);
    } else {
        y[e] = exp(x[e] - row.x) / row.y;
    }
}

// ------------------------------------------------------------------------------------------------- gradient: y, dy -> dx
// A partial result of softmax is taken against a pivot, the dy of its largest y (see softmax.wgsl for why):
// (largest y, pivot, sum of (dy - pivot) y, sum of y). Of log_softmax it is (0, 0, sum of dy, 0).
@group(0) @binding(0) var<storage, read> y_0: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums: array<vec4<f32>>;

// grad_partial: of the elements p, p + PARTS, ... of row r
@compute @workgroup_size(WG)
fn grad_partial(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let first = first_of(i / PARTS) + (i % PARTS) * INNER;
    var largest = first;
    var sum = 0.0;
    for (var k = i % PARTS; k < LEN; k += PARTS) {
        let e = first_of(i / PARTS) + k * INNER;
        sum += dy[e];
        if (y_0[e] > y_0[largest]) {
            largest = e;
        }
    }
    if (LOG) {
        sums[i] = vec4(0.0, 0.0, sum, 0.0);
        return;
    }
    let pivot = dy[largest];
    sum = 0.0;
    var weight = 0.0;
    for (var k = i % PARTS; k < LEN; k += PARTS) {
        let e = first_of(i / PARTS) + k * INNER;
        sum += (dy[e] - pivot) * y_0[e];
        weight += y_0[e];
    }
    sums[i] = vec4(y_0[largest], pivot, sum, weight);
}

@group(0) @binding(0) var<storage, read> sums_0: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> row_sums: array<vec4<f32>>;

// grad_total: the pivot of row r and its sum; a partial sum moves to the row's pivot by its weight
@compute @workgroup_size(WG)
fn grad_total(@builtin(global_invocation_id) id: vec3<u32>) {
    let r = id.y * GRID_X + id.x;
    if (r >= COUNT) {
        return;
    }
    var best = sums_0[r * PARTS];
    for (var p = 1u; p < PARTS; p++) {
        let part = sums_0[r * PARTS + p];
        if (part.x > best.x) {
            best = part;
        }
    }
    var sum = 0.0;
    for (var p = 0u; p < PARTS; p++) {
        let part = sums_0[r * PARTS + p];
        sum += part.z + part.w * (part.y - best.y);
    }
    row_sums[r] = vec4(best.y, sum, 0.0, 0.0);
}

@group(0) @binding(2) var<storage, read> row_sums_2: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(WG)
fn grad_finish(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let row = row_sums_2[row_of(e)];
    if (LOG) {
        dx[e] = dy[e] - exp(y_0[e]) * row.y;
    } else {
        dx[e] = y_0[e] * (dy[e] - row.x - row.y);
    }
}
