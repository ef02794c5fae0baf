// adabelief

struct Scalars {
    n: u32,
    at: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read_write> in_p: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> in_g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> in_m: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> in_s: array<vec4<f32>>;
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
    let in_s_value = in_s[i];
    let s0 = bitcast<f32>(control[k.at + 0u]); // 1 - beta1
    let s1 = bitcast<f32>(control[k.at + 1u]); // beta1
    let s2 = bitcast<f32>(control[k.at + 2u]); // 1 - beta2
    let s3 = bitcast<f32>(control[k.at + 3u]); // beta2
    let s4 = bitcast<f32>(control[k.at + 4u]); // eps
    let s5 = bitcast<f32>(control[k.at + 5u]); // maximum(eps * sqrt(1 - beta2 ** t), 1e-19)
    let s6 = bitcast<f32>(control[k.at + 6u]); // lr * sqrt(1 - beta2 ** t) / (1 - beta1 ** t)
    let s7 = bitcast<f32>(control[k.at + 7u]); // lr * weight_decay
    let t0 = vec4<f32>(s0) * in_g_value;
    let t1 = vec4<f32>(s1) * in_m_value;
    let t2 = t1 + t0;
    let t3 = in_g_value - t2;
    let t4 = vec4<f32>(s2) * t3;
    let t5 = t4 * t3;
    let t6 = vec4<f32>(s3) * in_s_value;
    let t7 = t6 + t5;
    let t8 = t7 + vec4<f32>(s4);
    let t9 = sqrt(t8);
    let t10 = t9 + vec4<f32>(s5);
    let t11 = t2 / t10;
    let t12 = vec4<f32>(s6) * t11;
    let t13 = vec4<f32>(s7) * in_p_value;
    let t14 = in_p_value - t13;
    let t15 = t14 - t12;
    let result0 = t15;
    let result1 = t2;
    let result2 = t8;
    if (control[0] != 0u) {
        in_p[i] = result0;
        in_m[i] = result1;
        in_s[i] = result2;
    }
}
