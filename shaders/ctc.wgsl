// alpha[t][state] = the logarithm of the probability of all paths to a state, including x[t]; and
// the loss of each sample, -log of the probability of all paths to its end. After ctc_states.wgsl.

@group(0) @binding(4) var<storage, read_write> alpha: array<f32>;
@group(0) @binding(5) var<storage, read_write> losses: array<f32>;

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
    for (var t = 0u; t < k.length; t++) {
        let row = (sample * k.length + t) * states;
        for (var s = local; s < states; s += LANES) {
            var found = NEVER;
            if (t == 0u) {
                if (s < 2u) {
                    found = own(sample, 0u, s);
                }
            } else {
                let before = row - states + s;
                let stay = alpha[before];
                found = stay;
                if (t < stop) {
                    var move_ = NEVER;
                    var jump = NEVER;
                    if (s > 0u) {
                        move_ = alpha[before - 1u];
                    }
                    if (skips(sample, s)) {
                        jump = alpha[before - 2u];
                    }
                    found = at_least_never(log_sum(stay, move_, jump) + own(sample, t, s));
                }
            }
            alpha[row + s] = found;
        }
        storageBarrier();
        workgroupBarrier();
    }
    if (local == 0u) {
        let count = min(counts[k.counts_start + sample], k.labels);
        let found = alpha_end(sample, count, states);
        losses[sample] = select(-found, bitcast<f32>(0x7f800000u | (count >> 31u)), found < -1e29);
    }
}
