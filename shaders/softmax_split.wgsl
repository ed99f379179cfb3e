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
@group(0) @binding(0) var<storage, read> y_0: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;

// grad_partial: the sum of dy[k], times y[k] for softmax, over the elements p, p + PARTS, ... of row r
@compute @workgroup_size(WG)
fn grad_partial(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let first = first_of(i / PARTS);
    var sum = 0.0;
    for (var k = i % PARTS; k < LEN; k += PARTS) {
        let e = first + k * INNER;
        if (LOG) {
            sum += dy[e];
        } else {
            sum += dy[e] * y_0[e];
        }
    }
    sums[i] = sum;
}

@group(0) @binding(0) var<storage, read> sums_0: array<f32>;
@group(0) @binding(1) var<storage, read_write> row_sums: array<f32>;

// grad_total: the sum of row r
@compute @workgroup_size(WG)
fn grad_total(@builtin(global_invocation_id) id: vec3<u32>) {
    let r = id.y * GRID_X + id.x;
    if (r >= COUNT) {
        return;
    }
    var sum = 0.0;
    for (var p = 0u; p < PARTS; p++) {
        sum += sums_0[r * PARTS + p];
    }
    row_sums[r] = sum;
}

@group(0) @binding(2) var<storage, read> row_sums_2: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(WG)
fn grad_finish(@builtin(global_invocation_id) id: vec3<u32>) {
    let e = id.y * GRID_X + id.x;
    if (e >= COUNT) {
        return;
    }
    let sum = row_sums_2[row_of(e)];
    if (LOG) {
        dx[e] = dy[e] - exp(y_0[e]) * sum;
    } else {
        dx[e] = y_0[e] * (dy[e] - sum);
    }
}
