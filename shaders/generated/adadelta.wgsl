// adadelta

struct Scalars {
    n: u32,
    at: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read_write> in_p: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> in_g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> in_v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> in_u: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> control: array<u32>;


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
    let in_v_value = in_v[i];
    let in_u_value = in_u[i];
    let s0 = bitcast<f32>(control[k.at + 0u]); // 1 - rho
    let s1 = bitcast<f32>(control[k.at + 1u]); // rho
    let s2 = bitcast<f32>(control[k.at + 2u]); // eps
    let s3 = bitcast<f32>(control[k.at + 3u]); // lr
    let s4 = bitcast<f32>(control[k.at + 4u]); // 1 - rho
    let t0 = vec4<f32>(s0) * in_g_value;
    let t1 = t0 * in_g_value;
    let t2 = vec4<f32>(s1) * in_v_value;
    let t3 = t2 + t1;
    let t4 = t3 + vec4<f32>(s2);
    let t5 = in_u_value + vec4<f32>(s2);
    let t6 = t5 / t4;
    let t7 = sqrt(t6);
    let t8 = t7 * in_g_value;
    let t9 = vec4<f32>(s3) * t8;
    let t10 = in_p_value - t9;
    let t11 = vec4<f32>(s4) * t8;
    let t12 = t11 * t8;
    let t13 = vec4<f32>(s1) * in_u_value;
    let t14 = t13 + t12;
    let result0 = t10;
    let result1 = t3;
    let result2 = t14;
    if (control[0] != 0u) {
        in_p[i] = result0;
        in_v[i] = result1;
        in_u[i] = result2;
    }
}
