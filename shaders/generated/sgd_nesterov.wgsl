// sgd_nesterov

struct Scalars {
    n: u32,
    tail: u32,
    s0: f32, // momentum
    s1: f32, // lr
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read_write> in_p: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> in_g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> in_b: array<vec4<f32>>;


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
    let in_b_value = in_b[i];
    let t0 = vec4<f32>(k.s0) * in_b_value;
    let t1 = t0 + in_g_value;
    let t2 = vec4<f32>(k.s0) * t1;
    let t3 = in_g_value + t2;
    let t4 = vec4<f32>(k.s1) * t3;
    let t5 = in_p_value - t4;
    let result0 = t5;
    let result1 = t1;
    if (k.tail == 0u || i + 1u < k.n) {
        in_p[i] = result0;
        in_b[i] = result1;
    } else {
        let inside = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(k.tail);
        in_p[i] = select(in_p[i], result0, inside);
        in_b[i] = select(in_b[i], result1, inside);
    }
}
