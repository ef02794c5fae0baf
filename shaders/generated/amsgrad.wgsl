// amsgrad

struct Scalars {
    n: u32,
    tail: u32,
    s0: f32, // 1 - beta2
    s1: f32, // beta2
    s2: f32, // eps * sqrt(1 - beta2 ** t)
    s3: f32, // 1 - beta1
    s4: f32, // beta1
    s5: f32, // lr * sqrt(1 - beta2 ** t) / (1 - beta1 ** t)
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read_write> in_p: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> in_g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> in_m: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> in_v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> in_v_max: array<vec4<f32>>;

fn is_nan(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
}

fn maximum(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return select(select(select(b, a, a > b), b, is_nan(b)), a, is_nan(a));
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.y * groups.x + group.x) * 64u + local;
    if (i >= k.n) {
        return;
    }
    let in_p_value = in_p[i];
    let in_g_value = in_g[i];
    let in_m_value = in_m[i];
    let in_v_value = in_v[i];
    let in_v_max_value = in_v_max[i];
    let t0 = vec4<f32>(k.s0) * in_g_value;
    let t1 = t0 * in_g_value;
    let t2 = vec4<f32>(k.s1) * in_v_value;
    let t3 = t2 + t1;
    let t4 = maximum(in_v_max_value, t3);
    let t5 = sqrt(t4);
    let t6 = t5 + vec4<f32>(k.s2);
    let t7 = vec4<f32>(k.s3) * in_g_value;
    let t8 = vec4<f32>(k.s4) * in_m_value;
    let t9 = t8 + t7;
    let t10 = t9 / t6;
    let t11 = vec4<f32>(k.s5) * t10;
    let t12 = in_p_value - t11;
    let result0 = t12;
    let result1 = t9;
    let result2 = t3;
    let result3 = t4;
    if (k.tail == 0u || i + 1u < k.n) {
        in_p[i] = result0;
        in_m[i] = result1;
        in_v[i] = result2;
        in_v_max[i] = result3;
    } else {
        let inside = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(k.tail);
        in_p[i] = select(in_p[i], result0, inside);
        in_m[i] = select(in_m[i], result1, inside);
        in_v[i] = select(in_v[i], result2, inside);
        in_v_max[i] = select(in_v_max[i], result3, inside);
    }
}
