// One optimizer step as in optimizer_step.wgsl, four parameters an invocation, in place. The idea: a step touches up to seven streams of
// memory and computes next to nothing, so what counts is wide loads and stores, and that the four numbers of `hyper`, the same for
// all, are one load and not four. COUNT is the number of vec4.
// hyper = (learning rate, c1, c2, gradient scale); see the plain page.

@group(0) @binding(0) var<storage, read> g: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> hyper: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> p: array<vec4<f32>>;

{% if KIND == "sgd" %}
// d = scale g + decay p;   b = mu b + c1 d;   p -= lr b,  or with Nesterov  p -= lr (d + mu b),  or without momentum  p -= lr d
{% if MOMENTUM %}
@group(0) @binding(3) var<storage, read_write> b: array<vec4<f32>>;
{% endif %}

@compute @workgroup_size(WG)
fn sgd(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let h = hyper[0];
    let old = p[i];
    let d = h.w * g[i] + WEIGHT_DECAY * old;
    var change = d;
{% if MOMENTUM %}
    let buffer = MU * b[i] + h.y * d;
    b[i] = buffer;
    change = select(buffer, d + MU * buffer, NESTEROV);
{% endif %}
    p[i] = old - h.x * change;
}
{% endif %}

{% if KIND == "adam" or KIND == "adamw" %}
// m += (1 - beta1) (d - m);   v = beta2 v + (1 - beta2) d^2;   p -= lr / c1 * m / (sqrt(v) / sqrt(c2) + eps)
@group(0) @binding(3) var<storage, read_write> m: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> v: array<vec4<f32>>;

// What is taken from the parameters i, whose gradients are d.
fn moments(i: u32, h: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
    let old = m[i];
    let first = old + FRESH_1 * (d - old);
    let second = OLD_2 * v[i] + FRESH_2 * d * d;
    m[i] = first;
    v[i] = second;
    return h.x / h.y * first / (sqrt(second) / sqrt(h.z) + EPS);
}

// d = scale g + decay p
@compute @workgroup_size(WG)
fn adam(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let h = hyper[0];
    let old = p[i];
    p[i] = old - moments(i, h, h.w * g[i] + WEIGHT_DECAY * old);
}

// d = scale g; the decay shrinks the parameter itself
@compute @workgroup_size(WG)
fn adamw(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let h = hyper[0];
    p[i] = (1.0 - h.x * WEIGHT_DECAY) * p[i] - moments(i, h, h.w * g[i]);
}
{% endif %}

{% if KIND == "rmsprop" %}
// d = scale g + decay p;   v = alpha v + (1 - alpha) d^2;   d' = d / (sqrt(v) + eps);   p -= lr d'
// centred: a += (1 - alpha) (d - a), and v - a^2 stands in the root;   with momentum: b = mu b + d', p -= lr b
@group(0) @binding(3) var<storage, read_write> v: array<vec4<f32>>;
{% if CENTERED %}
@group(0) @binding(4) var<storage, read_write> a: array<vec4<f32>>;
{% endif %}
{% if MOMENTUM %}
@group(0) @binding({{ 5 if CENTERED else 4 }}) var<storage, read_write> b: array<vec4<f32>>;
{% endif %}

@compute @workgroup_size(WG)
fn rmsprop(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * GRID_X + id.x;
    if (i >= COUNT) {
        return;
    }
    let h = hyper[0];
    let old = p[i];
    let d = h.w * g[i] + WEIGHT_DECAY * old;
    var spread = OLD_2 * v[i] + FRESH_2 * d * d;
    v[i] = spread;
{% if CENTERED %}
    let before = a[i];
    let mean = before + FRESH_2 * (d - before);
    a[i] = mean;
    spread = max(spread - mean * mean, vec4<f32>());   // rounding may take a variance of zero below zero
{% endif %}
    var change = d / (sqrt(spread) + EPS);
{% if MOMENTUM %}
    change += MU * b[i];
    b[i] = change;
{% endif %}
    p[i] = old - h.x * change;
}
{% endif %}
