// out = (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias of each channel, from the
// moments of its chunks. Writes the sums of x and of (x - mean)^2 to `total` and `squares`.
//
// The text before this one defines WEIGHTED.

@group(0) @binding(0) var<storage, read> x: array<Value>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> moments: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> out: array<Value>;
@group(0) @binding(5) var<storage, read_write> total: array<f32>;
@group(0) @binding(6) var<storage, read_write> squares: array<f32>;

@compute @workgroup_size(LANES * WIDE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let part = part_of(group, groups, local);
    var mine = vec4<f32>(0.0);
    for (var i = part.lane; i < k.chunks; i += LANES) {
        mine = combined(mine, moments[part.channel * k.chunks + i]);
    }
    let all = together(mine, local);
    var scale = scale_of(all.y);
    var shift = 0.0;
    if (WEIGHTED) {
        scale *= weight[part.channel];
        shift = bias[part.channel];
    }
    for (var i = part.start; i < part.stop; i += LANES * STEP) {
        let at = place(i, part.channel);
        out[at] = (x[at] - all.x) * scale + shift;
    }
    if (part.lane == 0u && part.number == 0u && part.is_inside) {
        total[part.channel] = all.x * f32(k.count);
        squares[part.channel] = all.y;
    }
}
