// out = g - exp(y) sum(g) of each row.

@group(0) @binding(0) var<storage, read> y: array<X>;
@group(0) @binding(1) var<storage, read> g: array<Y>;
@group(0) @binding(2) var<storage, read_write> out: array<Out>;

@compute @workgroup_size(LANES * ROWS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = row_of(group, groups, local);
    var sum = 0.0;
    for (var j = row.lane; j < row.stop; j += LANES) {
        sum += f32(g[k.start1 + row.first + j]);
    }
    sum = row_sum(sum, local);
    for (var j = row.lane; j < row.stop; j += LANES) {
        let p = exp1(f32(y[k.start0 + row.first + j]));
        out[k.start2 + row.first + j] = stored(f32(g[k.start1 + row.first + j]) - p * sum);
    }
}
