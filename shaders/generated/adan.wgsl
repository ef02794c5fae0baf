// adan

struct Scalars {
    n: u32,
    at: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read_write> in_p: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> in_g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> in_m: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> in_d: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> in_n: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> in_g_before: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> control: array<u32>;

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
    let in_d_value = in_d[i];
    let in_n_value = in_n[i];
    let in_g_before_value = in_g_before[i];
    let s0 = bitcast<f32>(control[k.at + 0u]); // where(le(t, 1), 0, 1)
    let s1 = bitcast<f32>(control[k.at + 1u]); // beta2
    let s2 = bitcast<f32>(control[k.at + 2u]); // 1 - beta3
    let s3 = bitcast<f32>(control[k.at + 3u]); // beta3
    let s4 = bitcast<f32>(control[k.at + 4u]); // maximum(eps * sqrt(1 - beta3 ** t), 1e-19)
    let s5 = bitcast<f32>(control[k.at + 5u]); // lr * sqrt(1 - beta3 ** t) * beta2 / (1 - beta2 ** t)
    let s6 = bitcast<f32>(control[k.at + 6u]); // 1 - beta2
    let s7 = bitcast<f32>(control[k.at + 7u]); // lr * sqrt(1 - beta3 ** t) / (1 - beta1 ** t)
    let s8 = bitcast<f32>(control[k.at + 8u]); // 1 - beta1
    let s9 = bitcast<f32>(control[k.at + 9u]); // beta1
    let s10 = bitcast<f32>(control[k.at + 10u]); // lr * weight_decay / (1 + lr * weight_decay)
    let t0 = in_g_value - in_g_before_value;
    let t1 = vec4<f32>(s0) * t0;
    let t2 = vec4<f32>(s1) * t1;
    let t3 = in_g_value + t2;
    let t4 = vec4<f32>(s2) * t3;
    let t5 = t4 * t3;
    let t6 = vec4<f32>(s3) * in_n_value;
    let t7 = t6 + t5;
    let t8 = sqrt(t7);
    let t9 = t8 + vec4<f32>(s4);
    let t10 = vec4<f32>(s6) * t1;
    let t11 = vec4<f32>(s1) * in_d_value;
    let t12 = t11 + t10;
    let t13 = vec4<f32>(s5) * t12;
    let t14 = vec4<f32>(s8) * in_g_value;
    let t15 = vec4<f32>(s9) * in_m_value;
    let t16 = t15 + t14;
    let t17 = vec4<f32>(s7) * t16;
    let t18 = t17 + t13;
    let t19 = t18 / t9;
    let t20 = in_p_value - t19;
    let t21 = vec4<f32>(s10) * t20;
    let t22 = t20 - t21;
    let result0 = t22;
    let result1 = t16;
    let result2 = t12;
    let result3 = t7;
    let result4 = in_g_value;
    if (control[0] != 0u) {
        in_p[i] = result0;
        in_m[i] = result1;
        in_d[i] = result2;
        in_n[i] = result3;
        in_g_before[i] = result4;
    }
}
