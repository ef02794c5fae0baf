// out = sum(t) log(sum(exp(x))) - sum(t x) of each row, with the target t = w ((1 - s) at its class
// and s / columns everywhere), where w is the class's weight and s the smoothing. The statistics of
// a row are its largest element, which is subtracted everywhere, the sum of the exponentials after
// that, and if IS_WEIGHTED the weight of its class. A row whose target is ignored costs 0; one whose
// target is no class is NaN.

@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<storage, read_write> statistics: array<f32>;

// 0 for a weight of 0, whose class counts for nothing, and a logit of -inf; NaN stays.
fn weighted(weight: f32, shifted: f32) -> f32 {
    return select(weight * shifted, 0.0, weight == 0.0 && shifted < 0.0);
}

@compute @workgroup_size(LANES * ROWS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = row_of(group, groups, local);
    let found = row_exponentials(row, local);
    let largest = found.largest;
    let sum = found.sum;
    var total = 0.0;
    var mass = f32(k.columns);
    if (k.smoothing > 0.0) {  // otherwise 0 times a logit of -inf would give NaN
        var weights = 0.0;
        for (var j = row.lane; j < row.stop; j += LANES) {
            total += weighted(class_weight(j), logit(row, j) - largest);
            weights += class_weight(j);
        }
        total = row_sum(total, local);
        if (IS_WEIGHTED) {
            mass = row_sum(weights, local);
        }
    }
    if (row.lane == 0u && row.stop > 0u) {
        let at = targets[k.start1 + row.number];
        let class_ = min(at, k.columns - 1u);
        let weight = class_weight(class_);
        var expected = weighted(weight, logit(row, class_) - largest);
        var target_sum = weight;
        if (k.smoothing > 0.0) {
            expected = (1.0 - k.smoothing) * expected + k.smoothing * (total / f32(k.columns));
            target_sum = (1.0 - k.smoothing) * weight + k.smoothing * (mass / f32(k.columns));
        }
        let place = k.start3 + STATISTICS * row.number;
        out[k.start2 + row.number] = target_share(at, target_sum * log1(sum) - expected);
        statistics[place] = largest;
        statistics[place + 1u] = sum;
        if (IS_WEIGHTED) {
            statistics[place + 2u] = target_share(at, weight);
        }
    }
}
