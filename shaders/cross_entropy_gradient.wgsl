// x = g (p - t) of each row, written over the logits x: p is their softmax, t the target, which is
// 1 - s at its class and s / columns in addition everywhere, s being the smoothing. 0 where the
// target is to be ignored, NaN where it is no class.

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
    let largest = statistics[k.start2 + 2u * row.number];
    let sum = statistics[k.start2 + 2u * row.number + 1u];
    let gradient = f32(g[k.start3 + row.number]);
    let share = k.smoothing / f32(k.columns);
    for (var j = row.lane; j < row.stop; j += LANES) {
        let place = k.start0 + row.first + j;
        let p = exp1(f32(x[place]) - largest) / sum;
        let expected = share + select(0.0, 1.0 - k.smoothing, j == at);
        x[place] = stored(target_share(at, gradient * (p - expected)));
    }
}
