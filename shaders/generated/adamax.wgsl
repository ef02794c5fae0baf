// adamax

struct Scalars {
    n: u32,
    at: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read_write> in_p: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> in_g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> in_m: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> in_u: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> control: array<u32>;

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
    let in_m_value = in_m[i];
    let in_u_value = in_u[i];
    let s0 = bitcast<f32>(control[k.at + 0u]); // 1 - beta1
    let s1 = bitcast<f32>(control[k.at + 1u]); // beta1
    let s2 = bitcast<f32>(control[k.at + 2u]); // eps
    let s3 = bitcast<f32>(control[k.at + 3u]); // beta2
    let s4 = bitcast<f32>(control[k.at + 4u]); // lr / (1 - beta1 ** t)
    let t0 = vec4<f32>(s0) * in_g_value;
    let t1 = vec4<f32>(s1) * in_m_value;
    let t2 = t1 + t0;
    let t3 = abs(in_g_value);
    let t4 = t3 + vec4<f32>(s2);
    let t5 = vec4<f32>(s3) * in_u_value;
    let t6 = maximum(t5, t4);
    let t7 = t2 / t6;
    let t8 = vec4<f32>(s4) * t7;
    let t9 = in_p_value - t8;
    let result0 = t9;
    let result1 = t2;
    let result2 = t6;
    if (control[0] != 0u) {
        in_p[i] = result0;
        in_m[i] = result1;
        in_u[i] = result2;
    }
}
