// One round of a bitonic merge over distances of at least a block; see sort.wgsl.

struct Scalars {
    exchanges: u32,
    distance: u32,
    size: u32,
    row: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read_write> pairs: array<vec2<u32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let j = (group.y * groups.x + group.x) * 256u + local;
    if (j >= k.exchanges) {
        return;
    }
    let low = 2u * j - (j & (k.distance - 1u));
    let a = pairs[low];
    let b = pairs[low + k.distance];
    let is_later = a.x > b.x || (a.x == b.x && a.y > b.y);
    if (is_later == (((low % k.row) & k.size) == 0u)) {
        pairs[low] = b;
        pairs[low + k.distance] = a;
    }
}
