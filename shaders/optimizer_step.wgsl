// One optimizer step over all parameters: one invocation a parameter p with its gradient g and its state, in place.
// hyper = (learning rate, c1, c2, gradient scale), the numbers that change from step to step; c1 and c2 are Adam's bias
// corrections 1 - beta^t, and c1 is the share of the gradient that joins SGD's momentum.
// Only the optimizer named by KIND is part of the module, with as many state vectors as it keeps.

@group(0) @binding(0) var<storage, read> g: array<f32>;
@group(0) @binding(1) var<storage, read> hyper: array<f32, 4>;
@group(0) @binding(2) var<storage, read_write> p: array<f32>;

{% if KIND == "sgd" %}
// d = scale g + decay p;   b = mu b + c1 d;   p -= lr b,  or with Nesterov  p -= lr (d + mu b),  or without momentum  p -= lr d
{% if MOMENTUM %}
@group(0) @binding(3) var<storage, read_write> b: array<f32>;
{% endif %}

@compute @workgroup_size(WG)
fn sgd(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let old = p[i];
    let d = hyper[3] * g[i] + WEIGHT_DECAY * old;
    var change = d;
{% if MOMENTUM %}
    let buffer = MU * b[i] + hyper[1] * d;
    b[i] = buffer;
    change = select(buffer, d + MU * buffer, NESTEROV);
{% endif %}
    p[i] = old - hyper[0] * change;
}
{% endif %}

{% if KIND == "adam" or KIND == "adamw" %}
// m += (1 - beta1) (d - m);   v = beta2 v + (1 - beta2) d^2;   p -= lr / c1 * m / (sqrt(v) / sqrt(c2) + eps)
@group(0) @binding(3) var<storage, read_write> m: array<f32>;
@group(0) @binding(4) var<storage, read_write> v: array<f32>;

// What is taken from parameter i, whose gradient is d.
fn moments(i: u32, d: f32) -> f32 {
    let first = m[i] + FRESH_1 * (d - m[i]);
    let second = OLD_2 * v[i] + FRESH_2 * d * d;
    m[i] = first;
    v[i] = second;
    return hyper[0] / hyper[1] * first / (sqrt(second) / sqrt(hyper[2]) + EPS);
}

// d = scale g + decay p
@compute @workgroup_size(WG)
fn adam(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let old = p[i];
    p[i] = old - moments(i, hyper[3] * g[i] + WEIGHT_DECAY * old);
}

// d = scale g; the decay shrinks the parameter itself
@compute @workgroup_size(WG)
fn adamw(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    p[i] = (1.0 - hyper[0] * WEIGHT_DECAY) * p[i] - moments(i, hyper[3] * g[i]);
}
{% endif %}

{% if KIND == "rmsprop" %}
// d = scale g + decay p;   v = alpha v + (1 - alpha) d^2;   d' = d / (sqrt(v) + eps);   p -= lr d'
// centred: a += (1 - alpha) (d - a), and v - a^2 stands in the root;   with momentum: b = mu b + d', p -= lr b
@group(0) @binding(3) var<storage, read_write> v: array<f32>;
{% if CENTERED %}
@group(0) @binding(4) var<storage, read_write> a: array<f32>;
{% endif %}
{% if MOMENTUM %}
@group(0) @binding({{ 5 if CENTERED else 4 }}) var<storage, read_write> b: array<f32>;
{% endif %}

@compute @workgroup_size(WG)
fn rmsprop(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let old = p[i];
    let d = hyper[3] * g[i] + WEIGHT_DECAY * old;
    var spread = OLD_2 * v[i] + FRESH_2 * d * d;
    v[i] = spread;
{% if CENTERED %}
    let mean = a[i] + FRESH_2 * (d - a[i]);
    a[i] = mean;
    spread = max(spread - mean * mean, 0.0);   // rounding may take a variance of zero below zero
{% endif %}
    var change = d / (sqrt(spread) + EPS);
{% if MOMENTUM %}
    change += MU * b[i];
    b[i] = change;
{% endif %}
    p[i] = old - hyper[0] * change;
}
{% endif %}
