// out = log(sum(exp(x))) - x[target], and the softmax, of each row.

@group(0) @binding(0) var<storage, read> x: array<X>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<Out>;
@group(0) @binding(3) var<storage, read_write> probabilities: array<Out>;

@compute @workgroup_size(LANES * ROWS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let wanted = (group.y * groups.x + group.x) * ROWS + local / LANES;
    let row = min(wanted, k.rows - 1u);
    let stop = select(k.columns, 0u, wanted >= k.rows);
    let lane = local % LANES;
    let first = row * k.columns;
    var largest = LOWEST;
    for (var j = lane; j < stop; j += LANES) {
        largest = max(largest, f32(x[k.start0 + first + j]));
    }
    largest = row_max(largest, local);
    var sum = 0.0;
    for (var j = lane; j < stop; j += LANES) {
        sum += exp1(f32(x[k.start0 + first + j]) - largest);
    }
    sum = row_sum(sum, local);
    for (var j = lane; j < stop; j += LANES) {
        let p = exp1(f32(x[k.start0 + first + j]) - largest) / sum;
        probabilities[k.start3 + first + j] = stored(p);
    }
    if (lane == 0u && stop > 0u) {
        let at = min(targets[k.start1 + row], k.columns - 1u);
        let loss = log1(sum) - (f32(x[k.start0 + first + at]) - largest);
        out[k.start2 + row] = stored(loss);
    }
}
