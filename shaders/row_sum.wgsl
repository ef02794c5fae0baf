// The sum over a row: LANES invocations share one row, ROWS rows share a workgroup.
//
// The text before this one defines LANES and ROWS. Every invocation must call the function.

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
