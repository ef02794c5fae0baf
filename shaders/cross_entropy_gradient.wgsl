// x = f g (sum(t) p - t) of each row, written over the logits x: p is their softmax, t the target; see
// cross_entropy.wgsl. f is a factor, and g may be one number for all rows (step is 0 then). Rows
// whose target is ignored get 0, those whose target is no class NaN.

@group(0) @binding(0) var<storage, read_write> x: array<X>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read> statistics: array<f32>;
@group(0) @binding(3) var<storage, read> g: array<Y>;

@compute @workgroup_size(LANES * ROWS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = row_of(group, groups, local);
    let at = targets[k.start1 + row.number];
    let largest = statistics[k.start2 + STATISTICS * row.number];
    let sum = statistics[k.start2 + STATISTICS * row.number + 1u];
    let gradient = f32(g[k.start3 + row.number * k.step]) * k.factor;
    let share = k.smoothing / f32(k.columns);
    let certain = (1.0 - k.smoothing) * class_weight(min(at, k.columns - 1u));
    var target_sum = 1.0;
    if (IS_WEIGHTED) {
        var weights = 0.0;
        if (k.smoothing > 0.0) {
            for (var j = row.lane; j < row.stop; j += LANES) {
                weights += class_weight(j);
            }
            weights = row_sum(weights, local);
        }
        target_sum = certain + share * weights;
    }
    let of_power = gradient * (target_sum / sum);
    let of_weight = gradient * share;
    let of_class = gradient * certain;
    // Four elements at a time: they are read before the first is written, since both are in x.
    for (var j = row.lane; j < row.stop; j += 4u * LANES) {
        let columns = vec4<u32>(j) + vec4<u32>(0u, 1u, 2u, 3u) * LANES;
        let places = k.start0 + row.first + min(columns, vec4<u32>(row.stop - 1u)) * k.places;
        let logits = vec4<f32>(
            f32(x[places.x]), f32(x[places.y]), f32(x[places.z]), f32(x[places.w])
        );
        let powers = exponential_of_negative(logits - largest);
        for (var i = 0u; i < 4u; i++) {
            if (columns[i] < row.stop) {
                let expected = of_weight * class_weight(columns[i])
                    + select(0.0, of_class, columns[i] == at);
                x[places[i]] = stored(target_share(at, of_power * powers[i] - expected));
            }
        }
    }
}
