// amsgrad

struct Scalars {
    n: u32,
    at: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read_write> in_p: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> in_g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> in_m: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> in_v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> in_v_max: array<vec4<f32>>;
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
    let in_v_max_value = in_v_max[i];
    let s0 = bitcast<f32>(control[k.at + 0u]); // 1 - beta2
    let s1 = bitcast<f32>(control[k.at + 1u]); // beta2
    let s2 = bitcast<f32>(control[k.at + 2u]); // maximum(eps * sqrt(1 - beta2 ** t), 1e-19)
    let s3 = bitcast<f32>(control[k.at + 3u]); // 1 - beta1
    let s4 = bitcast<f32>(control[k.at + 4u]); // beta1
    let s5 = bitcast<f32>(control[k.at + 5u]); // lr * sqrt(1 - beta2 ** t) / (1 - beta1 ** t)
    let t0 = vec4<f32>(s0) * in_g_value;
    let t1 = t0 * in_g_value;
    let t2 = vec4<f32>(s1) * in_v_value;
    let t3 = t2 + t1;
    let t4 = maximum(in_v_max_value, t3);
    let t5 = sqrt(t4);
    let t6 = t5 + vec4<f32>(s2);
    let t7 = vec4<f32>(s3) * in_g_value;
    let t8 = vec4<f32>(s4) * in_m_value;
    let t9 = t8 + t7;
    let t10 = t9 / t6;
    let t11 = vec4<f32>(s5) * t10;
    let t12 = in_p_value - t11;
    let result0 = t12;
    let result1 = t9;
    let result2 = t3;
    let result3 = t4;
    if (control[0] != 0u) {
        in_p[i] = result0;
        in_m[i] = result1;
        in_v[i] = result2;
        in_v_max[i] = result3;
    }
}
