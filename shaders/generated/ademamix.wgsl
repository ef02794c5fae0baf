// ademamix

struct Scalars {
    n: u32,
    at: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read_write> in_p: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> in_g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> in_m: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> in_v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> in_slow: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> control: array<u32>;

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
    let in_v_value = in_v[i];
    let in_slow_value = in_slow[i];
    let s0 = bitcast<f32>(control[k.at + 0u]); // sqrt(1 - beta2 ** t) / (1 - beta1 ** t)
    let s1 = bitcast<f32>(control[k.at + 1u]); // 1 - beta1
    let s2 = bitcast<f32>(control[k.at + 2u]); // beta1
    let s3 = bitcast<f32>(control[k.at + 3u]); // sqrt(1 - beta2 ** t) * alpha
    let s4 = bitcast<f32>(control[k.at + 4u]); // 1 - beta3
    let s5 = bitcast<f32>(control[k.at + 5u]); // beta3
    let s6 = bitcast<f32>(control[k.at + 6u]); // lr
    let s7 = bitcast<f32>(control[k.at + 7u]); // 1 - beta2
    let s8 = bitcast<f32>(control[k.at + 8u]); // beta2
    let s9 = bitcast<f32>(control[k.at + 9u]); // maximum(eps * sqrt(1 - beta2 ** t), 1e-19)
    let s10 = bitcast<f32>(control[k.at + 10u]); // 1 - lr * weight_decay
    let t0 = vec4<f32>(s1) * in_g_value;
    let t1 = vec4<f32>(s2) * in_m_value;
    let t2 = t1 + t0;
    let t3 = vec4<f32>(s0) * t2;
    let t4 = vec4<f32>(s4) * in_g_value;
    let t5 = vec4<f32>(s5) * in_slow_value;
    let t6 = t5 + t4;
    let t7 = vec4<f32>(s3) * t6;
    let t8 = t3 + t7;
    let t9 = vec4<f32>(s6) * t8;
    let t10 = vec4<f32>(s7) * in_g_value;
    let t11 = t10 * in_g_value;
    let t12 = vec4<f32>(s8) * in_v_value;
    let t13 = t12 + t11;
    let t14 = sqrt(t13);
    let t15 = t14 + vec4<f32>(s9);
    let t16 = t9 / t15;
    let t17 = in_p_value * vec4<f32>(s10);
    let t18 = t17 - t16;
    let result0 = t18;
    let result1 = t2;
    let result2 = t13;
    let result3 = t6;
    if (control[0] != 0u) {
        in_p[i] = result0;
        in_m[i] = result1;
        in_v[i] = result2;
        in_slow[i] = result3;
    }
}
