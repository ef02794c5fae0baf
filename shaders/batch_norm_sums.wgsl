// The sums of g and of g n, n = (x - mean) scale, over each chunk of each channel; also mean and
// scale, which batch_norm_gradient.wgsl needs.

@group(0) @binding(0) var<storage, read> x: array<Value>;
@group(0) @binding(1) var<storage, read> total: array<f32>;
@group(0) @binding(2) var<storage, read> squares: array<f32>;
@group(0) @binding(3) var<storage, read> g: array<Value>;
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;

@compute @workgroup_size(LANES * WIDE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let part = part_of(group, groups, local);
    let mean = total[part.channel] / f32(k.count);
    let scale = scale_of(squares[part.channel]);
    var sum = Value(0.0);
    var product = Value(0.0);
    for (var i = part.start; i < part.stop; i += LANES * STEP) {
        let at = place(i, part.channel);
        sum += g[at];
        product += g[at] * (x[at] - mean);
    }
    let all = together(vec4<f32>(added(sum), added(product) * scale, 0.0, 0.0), local);
    if (part.lane == 0u && part.is_inside) {
        let number = part.channel * k.chunks + part.number;
        sums[number] = vec4<f32>(all.xy, mean, scale);
    }
}
