// lion

struct Scalars {
    n: u32,
    at: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read_write> in_p: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> in_g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> in_m: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> control: array<u32>;

fn is_nan(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
}

fn sign_of(x: vec4<f32>) -> vec4<f32> {
    let positive = select(x, vec4<f32>(1.0), x > vec4<f32>(0.0));
    return select(select(positive, vec4<f32>(-1.0), x < vec4<f32>(0.0)), x, is_nan(x));
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
    let s0 = bitcast<f32>(control[k.at + 0u]); // 1 - beta1
    let s1 = bitcast<f32>(control[k.at + 1u]); // beta1
    let s2 = bitcast<f32>(control[k.at + 2u]); // lr
    let s3 = bitcast<f32>(control[k.at + 3u]); // lr * weight_decay
    let s4 = bitcast<f32>(control[k.at + 4u]); // 1 - beta2
    let s5 = bitcast<f32>(control[k.at + 5u]); // beta2
    let t0 = vec4<f32>(s0) * in_g_value;
    let t1 = vec4<f32>(s1) * in_m_value;
    let t2 = t1 + t0;
    let t3 = sign_of(t2);
    let t4 = vec4<f32>(s2) * t3;
    let t5 = in_p_value - t4;
    let t6 = vec4<f32>(s3) * in_p_value;
    let t7 = t5 - t6;
    let t8 = vec4<f32>(s4) * in_g_value;
    let t9 = vec4<f32>(s5) * in_m_value;
    let t10 = t9 + t8;
    let result0 = t7;
    let result1 = t10;
    if (control[0] != 0u) {
        in_p[i] = result0;
        in_m[i] = result1;
    }
}
