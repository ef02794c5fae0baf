// For each position of an index, the next position of the same number.
//
// next[i] is the first j > i with index[j] = index[i], or `count`. follows[j] is set to 1 for every
// such j, and stays 0 for the first position of each number.

struct Scalars {
    count: u32,
    index_start: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> index: array<u32>;
@group(0) @binding(1) var<storage, read_write> next: array<u32>;
@group(0) @binding(2) var<storage, read_write> follows: array<u32>;

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
    let wanted = index[k.index_start + i];
    var j = i + 1u;
    while (j < k.count) {
        if (index[k.index_start + j] == wanted) {
            break;
        }
        j++;
    }
    next[i] = j;
    if (j < k.count) {
        follows[j] = 1u;
    }
}
