// sgd

struct Scalars {
    n: u32,
    tail: u32,
    s0: f32, // lr
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read_write> in_p: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> in_g: array<vec4<f32>>;


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
    let t0 = vec4<f32>(k.s0) * in_g_value;
    let t1 = in_p_value - t0;
    let result0 = t1;
    if (k.tail == 0u || i + 1u < k.n) {
        in_p[i] = result0;
    } else {
        let inside = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(k.tail);
        in_p[i] = select(in_p[i], result0, inside);
    }
}
