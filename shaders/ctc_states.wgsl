// The part that the recursions of connectionist temporal classification share. A workgroup handles
// one sample, its lanes the states: labels, with blanks around each. The logarithm of an impossible
// event is NEVER, which is finite.

struct Scalars {
    length: u32,
    classes: u32,
    labels: u32,
    blank: u32,
    samples: u32,
    x_start: u32,
    labels_start: u32,
    lengths_start: u32,
    counts_start: u32,
    gradient_start: u32,
    into_start: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read> lengths: array<u32>;
@group(0) @binding(3) var<storage, read> counts: array<u32>;

const NEVER = -1e30;
const LANES = 64u;

fn class_of(sample: u32, state: u32) -> u32 {
    let label = labels[k.labels_start + sample * k.labels + min(state / 2u, k.labels - 1u)];
    return select(k.blank, min(label, k.classes - 1u), state % 2u == 1u);
}

// Whether the blank before a label may be skipped: the label differs from the previous one.
fn skips(sample: u32, state: u32) -> bool {
    if (state < 2u || state % 2u == 0u) {
        return false;
    }
    return class_of(sample, state) != class_of(sample, state - 2u);
}

fn of_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

fn at_least_never(x: f32) -> f32 {
    return select(max(x, NEVER), x, of_nan(x));
}

fn own(sample: u32, t: u32, state: u32) -> f32 {
    let at = (sample * k.length + t) * k.classes + class_of(sample, state);
    return at_least_never(x[k.x_start + at]);
}

// log(exp(a) + exp(b) + exp(c)).
fn log_sum(a: f32, b: f32, c: f32) -> f32 {
    let largest = max(max(a, b), c);
    let powers = exponential(vec4<f32>(a - largest, b - largest, c - largest, NEVER));
    let found = largest + logarithm(vec4<f32>(powers.x + powers.y + powers.z)).x;
    return at_least_never(select(found, a + b + c, of_nan(a) || of_nan(b) || of_nan(c)));
}

// The logarithm of the probability of all paths to the end of a sample; later text binds `alpha`.
fn alpha_end(sample: u32, count: u32, states: u32) -> f32 {
    let end = (sample * k.length + k.length - 1u) * states;
    var label = NEVER;
    if (count > 0u) {
        label = alpha[end + 2u * count - 1u];
    }
    return log_sum(alpha[end + 2u * count], label, NEVER);
}
