// out = g (p - 1 at the target) of each row.

@group(0) @binding(0) var<storage, read> p: array<X>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read> g: array<Y>;
@group(0) @binding(3) var<storage, read_write> out: array<Out>;

@compute @workgroup_size(LANES * ROWS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let wanted = (group.y * groups.x + group.x) * ROWS + local / LANES;
    let row = min(wanted, k.rows - 1u);
    let stop = select(k.columns, 0u, wanted >= k.rows);
    let lane = local % LANES;
    let first = row * k.columns;
    let at = targets[k.start1 + row];
    let gradient = f32(g[k.start2 + row]);
    for (var j = lane; j < stop; j += LANES) {
        let hit = select(0.0, 1.0, j == at);
        out[k.start3 + first + j] = stored(gradient * (f32(p[k.start0 + first + j]) - hit));
    }
}
