// out = log(sum(exp(x))) - x[target] of each row, where smoothing s > 0 with (1 - s) x[target] +
// s mean(x) instead of x[target]. The statistics of a row are its largest element, which is taken
// out of everything, and the sum of the exponentials without it. A row whose target is to be ignored
// costs 0; one whose target is no class is NaN.

@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<storage, read_write> statistics: array<f32>;

@compute @workgroup_size(LANES * ROWS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = row_of(group, groups, local);
    let largest = row_largest(row, local);
    let sum = row_exponentials(row, largest, local);
    var total = 0.0;
    if (k.smoothing > 0.0) {  // else a logit of -inf would count
        for (var j = row.lane; j < row.stop; j += LANES) {
            total += logit(row, j) - largest;
        }
        total = row_sum(total, local);
    }
    if (row.lane == 0u && row.stop > 0u) {
        let at = targets[k.start1 + row.number];
        var expected = logit(row, min(at, k.columns - 1u)) - largest;
        if (k.smoothing > 0.0) {
            expected = (1.0 - k.smoothing) * expected + k.smoothing * (total / f32(k.columns));
        }
        out[k.start2 + row.number] = target_share(at, log1(sum) - expected);
        statistics[k.start3 + 2u * row.number] = largest;
        statistics[k.start3 + 2u * row.number + 1u] = sum;
    }
}
