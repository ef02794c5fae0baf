// schedule_free_sgd

struct Scalars {
    n: u32,
    at: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read_write> in_p: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> in_g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> in_d: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> control: array<u32>;

fn is_nan(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
}

fn minimum(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return select(select(select(b, a, a < b), b, is_nan(b)), a, is_nan(a));
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
    let in_d_value = in_d[i];
    let s0 = bitcast<f32>(control[k.at + 0u]); // 1 - beta1 * (1 - where(lt(0, weight_sum), weight / weight_sum, 0))
    let s1 = bitcast<f32>(control[k.at + 1u]); // lr * minimum(t / warmup_steps, 1)
    let s2 = bitcast<f32>(control[k.at + 2u]); // weight_decay
    let s3 = bitcast<f32>(control[k.at + 3u]); // 1 - beta1
    let s4 = bitcast<f32>(control[k.at + 4u]); // 1 - where(lt(0, weight_sum), weight / weight_sum, 0)
    let t0 = vec4<f32>(s2) * in_p_value;
    let t1 = in_g_value + t0;
    let t2 = vec4<f32>(s1) * t1;
    let t3 = in_d_value - t2;
    let t4 = vec4<f32>(s0) * t3;
    let t5 = vec4<f32>(s3) * in_d_value;
    let t6 = in_p_value - t5;
    let t7 = t6 + t4;
    let t8 = vec4<f32>(s4) * t3;
    let result0 = t7;
    let result1 = t8;
    if (control[0] != 0u) {
        in_p[i] = result0;
        in_d[i] = result1;
    }
}
