// sgd_momentum

struct Scalars {
    n: u32,
    at: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read_write> in_p: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> in_g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> in_b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> control: array<u32>;


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
    let in_b_value = in_b[i];
    let s0 = bitcast<f32>(control[k.at + 0u]); // where(le(t, 1), 1, 1 - dampening)
    let s1 = bitcast<f32>(control[k.at + 1u]); // momentum
    let s2 = bitcast<f32>(control[k.at + 2u]); // lr
    let t0 = vec4<f32>(s0) * in_g_value;
    let t1 = vec4<f32>(s1) * in_b_value;
    let t2 = t1 + t0;
    let t3 = vec4<f32>(s2) * t2;
    let t4 = in_p_value - t3;
    let result0 = t4;
    let result1 = t2;
    if (control[0] != 0u) {
        in_p[i] = result0;
        in_b[i] = result1;
    }
}
