// to[i] = table[index[i]] for rows of `width` elements, one element per invocation.
//
// The text before this one defines the type Element: one element, or four if the rows allow it.

struct Scalars {
    count: u32,
    width: u32,
    rows: u32,
    table_start: u32,
    index_start: u32,
    to_start: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> table: array<Element>;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read_write> to_: array<Element>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.y * groups.x + group.x) * 64u + local;
    if (i >= k.count) {
        return;
    }
    let row = min(index[k.index_start + i / k.width], k.rows - 1u);
    to_[k.to_start + i] = table[k.table_start + row * k.width + i % k.width];
}
