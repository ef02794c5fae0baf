// out = x - max - log(sum(exp(x - max))) of each row.

@group(0) @binding(1) var<storage, read_write> out: array<Out>;

@compute @workgroup_size(LANES * ROWS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = row_of(group, groups, local);
    let found = row_exponentials(row, local);
    let shift = log1(found.sum);
    for (var j = row.lane; j < row.stop; j += LANES) {
        out[k.start1 + row.first + j] = stored((logit(row, j) - found.largest) - shift);
    }
}
