// x = f g (sum(t) p - t) of each row, written over the logits x: p is their softmax, t the target; see
// cross_entropy.wgsl. f is a factor, and g may be one number for all rows (step is 0 then). Rows
// whose target is ignored get 0, those whose target is no class NaN.

@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read> statistics: array<f32>;
@group(0) @binding(3) var<storage, read> g: array<Y>;

fn class_weights(columns: vec4<u32>) -> vec4<f32> {
    let classes = min(columns, vec4<u32>(k.columns - 1u));
    return vec4<f32>(
        class_weight(classes.x), class_weight(classes.y),
        class_weight(classes.z), class_weight(classes.w),
    );
}

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
    let gradient = target_share(at, f32(g[k.start3 + row.number * k.step]) * k.factor);
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
    let is_ignored = vec4<bool>(at == k.ignored);
    for (var step = 0u; step < steps_of(row); step++) {
        let columns = columns_at(row, step);
        let powers = exponential_of_negative(logits_at(row, columns) - largest);
        let hit = select(vec4<f32>(), vec4<f32>(of_class), columns == vec4<u32>(at));
        let value = of_power * powers - (of_weight * class_weights(columns) + hit);
        write_at(row, columns, select(value, vec4<f32>(), is_ignored));
    }
}
