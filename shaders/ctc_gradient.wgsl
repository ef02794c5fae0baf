// into[t][class] = -g times the probability that a path is in a state of the class at t. After
// ctc_states.wgsl; `into` must be 0 before.
//
// beta is the logarithm of the probability of all paths from a state to the end, of two steps in
// turn. The first state of a class adds up all of its states: it follows links to the next of the
// same class, so that every sum has one writer.

@group(0) @binding(4) var<storage, read> alpha: array<f32>;
@group(0) @binding(5) var<storage, read> gradient: array<f32>;
@group(0) @binding(6) var<storage, read_write> into: array<f32>;
@group(0) @binding(7) var<storage, read_write> scratch: array<f32>;

fn place(sample: u32, what: u32, state: u32) -> u32 {
    return (4u * sample + what) * (2u * k.labels + 1u) + state;
}

fn beta_of(sample: u32, t: u32, state: u32) -> f32 {
    return scratch[place(sample, t % 2u, state)];
}

fn ahead(sample: u32, t: u32, state: u32) -> f32 {
    return at_least_never(beta_of(sample, t, state) + own(sample, t, state));
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let sample = group.y * groups.x + group.x;
    if (sample >= k.samples) {
        return;
    }
    let states = 2u * k.labels + 1u;
    let stop = min(lengths[k.lengths_start + sample], k.length);
    let count = min(counts[k.counts_start + sample], k.labels);
    let g = gradient[k.gradient_start + sample];
    let end = alpha_end(sample, count, states);
    // If no path is possible, the gradient is NaN, or 0 if the loss is not used.
    let of_impossible = bitcast<f32>(select(0x7fc00000u | (count >> 31u), 0u, g == 0.0));
    // The next state of the same class, with a minus sign if this one is not the first.
    for (var s = local; s < states; s += LANES) {
        var next = states;
        for (var other = s + 1u; other < states && next == states; other++) {
            next = select(next, other, class_of(sample, other) == class_of(sample, s));
        }
        var is_first = true;
        for (var other = 0u; other < s && is_first; other++) {
            is_first = class_of(sample, other) != class_of(sample, s);
        }
        scratch[place(sample, 3u, s)] = select(-f32(next), f32(next), is_first);
    }
    for (var back = 0u; back < k.length; back++) {
        let t = k.length - 1u - back;
        let row = (sample * k.length + t) * states;
        for (var s = local; s < states; s += LANES) {
            let is_end = s == 2u * count || (count > 0u && s == 2u * count - 1u);
            var beta = select(NEVER, 0.0, is_end);
            if (t + 1u < stop) {
                var move_ = NEVER;
                var jump = NEVER;
                if (s + 1u < states) {
                    move_ = ahead(sample, t + 1u, s + 1u);
                }
                if (s + 2u < states && skips(sample, s + 2u)) {
                    jump = ahead(sample, t + 1u, s + 2u);
                }
                beta = log_sum(ahead(sample, t + 1u, s), move_, jump);
            }
            scratch[place(sample, t % 2u, s)] = beta;
            let share = exponential(vec4<f32>(alpha[row + s] + beta - end)).x;
            scratch[place(sample, 2u, s)] = select(share, of_impossible, end < -1e29);
        }
        storageBarrier();
        workgroupBarrier();
        if (t < stop) {
            for (var s = local; s < states; s += LANES) {
                var next = scratch[place(sample, 3u, s)];
                if (next > 0.0) {
                    var sum = scratch[place(sample, 2u, s)];
                    while (u32(abs(next)) < states) {
                        let other = u32(abs(next));
                        sum += scratch[place(sample, 2u, other)];
                        next = scratch[place(sample, 3u, other)];
                    }
                    let at = (sample * k.length + t) * k.classes + class_of(sample, s);
                    into[k.into_start + at] = select(-g * sum, 0.0, g == 0.0);
                }
            }
        }
        storageBarrier();
        workgroupBarrier();
    }
}
