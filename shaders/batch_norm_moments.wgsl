// The moments of each chunk of each channel, in one pass over memory.
//
// An invocation subtracts its first element from the others, so that the sum of squares does not
// cancel: the remaining mean is no larger than the spread of these few elements.

@group(0) @binding(0) var<storage, read> x: array<Value>;
@group(0) @binding(1) var<storage, read_write> moments: array<vec4<f32>>;

@compute @workgroup_size(LANES * WIDE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let part = part_of(group, groups, local);
    let first = x[place(min(part.start, k.count - STEP), part.channel)];
    var sum = Value(0.0);
    var squares = Value(0.0);
    var number = 0.0;
    for (var i = part.start; i < part.stop; i += LANES * STEP) {
        let rest = x[place(i, part.channel)] - first;
        sum += rest;
        squares += rest * rest;
        number += 1.0;
    }
    let share = sum / max(number, 1.0);
    let means = first + share;
    let mean = added(means) / f32(STEP);
    let apart = means - mean;
    let around = added(squares - sum * share) + number * added(apart * apart);
    let mine = vec4<f32>(mean, around, number * f32(STEP), 0.0);
    let all = together(select(vec4<f32>(0.0), mine, number > 0.0), local);
    if (part.lane == 0u && part.is_inside) {
        moments[part.channel * k.chunks + part.number] = all;
    }
}
