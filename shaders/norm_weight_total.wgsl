// The gradients of weight and bias from the sums over blocks of rows that norm_weight_gradient.wgsl
// wrote: an invocation adds every LANES-th block of a column, then a tree of fixed shape the lanes.
//
// The text before this one defines LANES and COLUMNS, of a workgroup, BIASED, Sum (the type written),
// and `stored`, which converts a number to it.

struct Scalars {
    blocks: u32,
    columns: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> weights: array<f32>;
@group(0) @binding(1) var<storage, read> biases: array<f32>;
@group(0) @binding(2) var<storage, read_write> weight: array<Sum>;
@group(0) @binding(3) var<storage, read_write> bias: array<Sum>;

var<workgroup> shared_values: array<vec2<f32>, LANES * COLUMNS>;

@compute @workgroup_size(LANES * COLUMNS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let wanted = (group.y * groups.x + group.x) * COLUMNS + local % COLUMNS;
    let column = min(wanted, k.columns - 1u);
    let lane = local / COLUMNS;
    var sums = vec2<f32>(0.0);
    for (var block = lane; block < k.blocks; block += LANES) {
        let at = block * k.columns + column;
        sums.x += weights[at];
        if (BIASED) {
            sums.y += biases[at];
        }
    }
    shared_values[local] = sums;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            shared_values[local] += shared_values[local + half * COLUMNS];
        }
    }
    if (lane == 0u && wanted < k.columns) {
        weight[column] = stored(shared_values[local].x);
        if (BIASED) {
            bias[column] = stored(shared_values[local].y);
        }
    }
}
