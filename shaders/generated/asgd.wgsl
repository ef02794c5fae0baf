// asgd

struct Scalars {
    n: u32,
    at: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read_write> in_p: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> in_g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> in_ax: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> control: array<u32>;

fn is_nan(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
}

fn maximum(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return select(select(select(b, a, a > b), b, is_nan(b)), a, is_nan(a));
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.y * groups.x + group.x) * 128u + local;
    if (i >= k.n) {
        return;
    }
    let in_p_value = in_p[i];
    let in_g_value = in_g[i];
    let in_ax_value = in_ax[i];
    let s0 = bitcast<f32>(control[k.at + 0u]); // 1 - lambd * (lr / (1 + lambd * lr * (t - 1)) ** alpha)
    let s1 = bitcast<f32>(control[k.at + 1u]); // lr / (1 + lambd * lr * (t - 1)) ** alpha
    let s2 = bitcast<f32>(control[k.at + 2u]); // 1 / maximum(t - 1 - t0, 1)
    let s3 = bitcast<f32>(control[k.at + 3u]); // 1 - 1 / maximum(t - 1 - t0, 1)
    let t0 = in_p_value * vec4<f32>(s0);
    let t1 = vec4<f32>(s1) * in_g_value;
    let t2 = t0 - t1;
    let t3 = vec4<f32>(s2) * t2;
    let t4 = vec4<f32>(s3) * in_ax_value;
    let t5 = t4 + t3;
    let result0 = t2;
    let result1 = t5;
    if (control[0] != 0u) {
        in_p[i] = result0;
        in_ax[i] = result1;
    }
}
