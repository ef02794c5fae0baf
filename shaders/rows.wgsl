// What the softmaxes share, after row_sum.wgsl. Every function is called by all invocations.

struct Scalars {
    rows: u32,
    columns: u32,
    start0: u32,
    start1: u32,
    start2: u32,
    start3: u32,
}

var<immediate> k: Scalars;
// NaN may be lost here; it comes back with the sum of the row.
fn row_max(value: f32, local: u32) -> f32 {
    let lane = local % LANES;
    workgroupBarrier();
    shared_values[local] = value;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            shared_values[local] = max(shared_values[local], shared_values[local + half]);
        }
    }
    workgroupBarrier();
    return shared_values[local - lane];
}

const LOWEST = -3.4028234e38;

fn exp1(x: f32) -> f32 {
    return exponential(vec4<f32>(x)).x;
}

fn log1(x: f32) -> f32 {
    return logarithm(vec4<f32>(x)).x;
}
