// softmax and log_softmax, plainly: one invocation a row of LEN elements that lie INNER apart, forward and gradient.
//
//   m = max(x),  s = sum over j of exp(x[j] - m),  y[k] = exp(x[k] - m) / s,  or  x[k] - m - log(s)  where LOG

const LOWEST: f32 = -3.4028234e38;   // from here a maximum begins; from -inf, -inf - -inf would be NaN

// The first element of row r.
fn first_of(r: u32) -> u32 {
    return (r / INNER) * LEN * INNER + r % INNER;
}

// ------------------------------------------------------------------------------------------------------- forward: x -> y
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let r = id.y * GRID_X + id.x;
    if (r >= COUNT) {
        return;
    }
    let first = first_of(r);
    var most = LOWEST;
    for (var k = 0u; k < LEN; k++) {
        most = max(most, x[first + k * INNER]);
    }
    var sum = 0.0;
    for (var k = 0u; k < LEN; k++) {
        sum += exp(x[first + k * INNER] - most);
    }
    let log_sum = log(sum);
    for (var k = 0u; k < LEN; k++) {
        let e = first + k * INNER;
        if (LOG) {
            y[e] = x[e] - most - log_sum;
        } else {
            y[e] = exp(x[e] - most) / sum;
        }
    }
}

// ------------------------------------------------------------------------------------------------- gradient: y, dy -> dx
// softmax:      dx[k] = y[k] * (dy[k] - sum of dy[j] y[j])
// log_softmax:  dx[k] = dy[k] - exp(y[k]) * sum of dy[j]
//
// The y of a row add up to 1, so any number may be taken off all dy of it. Taking off the dy of the largest y keeps the
// difference exact where one y is nearly 1 and the others nearly 0.
@group(0) @binding(0) var<storage, read> y_0: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(WG)
fn gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let r = id.y * GRID_X + id.x;
    if (r >= COUNT) {
        return;
    }
    let first = first_of(r);
    var largest = first;
    var sum = 0.0;
    for (var k = 0u; k < LEN; k++) {
        let e = first + k * INNER;
        sum += dy[e];
        if (y_0[e] > y_0[largest]) {
            largest = e;
        }
    }
    let pivot = dy[largest];
    if (!LOG) {
        sum = 0.0;
        for (var k = 0u; k < LEN; k++) {
            let e = first + k * INNER;
            sum += (dy[e] - pivot) * y_0[e];
        }
    }
    for (var k = 0u; k < LEN; k++) {
        let e = first + k * INNER;
        if (LOG) {
            dx[e] = dy[e] - exp(y_0[e]) * sum;
        } else {
            dx[e] = y_0[e] * (dy[e] - pivot - sum);
        }
    }
}
