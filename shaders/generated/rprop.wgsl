// rprop

struct Scalars {
    n: u32,
    at: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read_write> in_p: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> in_g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> in_g_before: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> in_step: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> control: array<u32>;

fn is_nan(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
}

fn less(a: vec4<f32>, b: vec4<f32>) -> vec4<bool> {
    return (a < b) & !(is_nan(a) | is_nan(b));
}

fn maximum(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return select(select(select(b, a, a > b), b, is_nan(b)), a, is_nan(a));
}

fn minimum(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return select(select(select(b, a, a < b), b, is_nan(b)), a, is_nan(a));
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
    let in_g_before_value = in_g_before[i];
    let in_step_value = in_step[i];
    let s0 = bitcast<f32>(control[k.at + 0u]); // eta_minus
    let s1 = bitcast<f32>(control[k.at + 1u]); // eta_plus
    let s2 = bitcast<f32>(control[k.at + 2u]); // where(le(t, 1), lr, 0)
    let s3 = bitcast<f32>(control[k.at + 3u]); // step_min
    let s4 = bitcast<f32>(control[k.at + 4u]); // step_max
    let t0 = sign_of(in_g_value);
    let t1 = sign_of(in_g_before_value);
    let t2 = t0 * t1;
    let t3 = less(t2, vec4<f32>(0.0));
    let t4 = select(vec4<f32>(1.0), vec4<f32>(s0), t3);
    let t5 = less(vec4<f32>(0.0), t2);
    let t6 = select(t4, vec4<f32>(s1), t5);
    let t7 = in_step_value + vec4<f32>(s2);
    let t8 = t7 * t6;
    let t9 = maximum(t8, vec4<f32>(s3));
    let t10 = minimum(t9, vec4<f32>(s4));
    let t11 = less(t2, vec4<f32>(0.0));
    let t12 = select(in_g_value, vec4<f32>(0.0), t11);
    let t13 = sign_of(t12);
    let t14 = t13 * t10;
    let t15 = in_p_value - t14;
    let result0 = t15;
    let result1 = t12;
    let result2 = t10;
    if (control[0] != 0u) {
        in_p[i] = result0;
        in_g_before[i] = result1;
        in_step[i] = result2;
    }
}
