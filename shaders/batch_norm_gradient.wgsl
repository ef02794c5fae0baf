// The gradients of a batch norm from the sums of its chunks: with n = (x - mean) scale
// out = (g - mean(g) - n mean(g n)) scale weight; of the weight sum(g n), of the bias sum(g).
//
// The text before this one defines WEIGHTED, and WRITES_ROWS: whether to write `out`.

@group(0) @binding(0) var<storage, read> x: array<Value>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> g: array<Value>;
@group(0) @binding(3) var<storage, read> sums: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> out: array<Value>;
@group(0) @binding(5) var<storage, read_write> weights: array<f32>;
@group(0) @binding(6) var<storage, read_write> biases: array<f32>;

@compute @workgroup_size(LANES * WIDE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let part = part_of(group, groups, local);
    var mine = vec4<f32>(0.0);
    for (var i = part.lane; i < k.chunks; i += LANES) {
        mine += vec4<f32>(sums[part.channel * k.chunks + i].xy, 0.0, 0.0);
    }
    let all = together(mine, local);
    let mean = sums[part.channel * k.chunks].z;
    let scale = sums[part.channel * k.chunks].w;
    if (WRITES_ROWS) {
        var factor = scale;
        if (WEIGHTED) {
            factor *= weight[part.channel];
        }
        let less = all.x / f32(k.count);
        let slope = all.y * scale / f32(k.count);
        for (var i = part.start; i < part.stop; i += LANES * STEP) {
            let at = place(i, part.channel);
            out[at] = (g[at] - less - (x[at] - mean) * slope) * factor;
        }
    }
    if (part.lane == 0u && part.number == 0u && part.is_inside) {
        weights[part.channel] = all.y;
        biases[part.channel] = all.x;
    }
}
