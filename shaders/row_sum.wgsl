// The sum over a row: LANES invocations take one row together, ROWS rows are in a workgroup.
//
// In front of this text stand LANES and ROWS. The function is called by all invocations.

var<workgroup> shared_values: array<f32, LANES * ROWS>;

fn row_sum(value: f32, local: u32) -> f32 {
    let lane = local % LANES;
    workgroupBarrier();
    shared_values[local] = value;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            shared_values[local] += shared_values[local + half];
        }
    }
    workgroupBarrier();
    return shared_values[local - lane];
}
