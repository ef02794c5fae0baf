// For each position of an index, the next position with the same number.
//
// next[i] is the first j > i with index[j] = index[i], or `count`. follows[i] is 1 if there is such
// a j < i, and 0 for the first position of each number. A workgroup searches for one position.

struct Scalars {
    count: u32,
    index_start: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> index: array<u32>;
@group(0) @binding(1) var<storage, read_write> next: array<u32>;
@group(0) @binding(2) var<storage, read_write> follows: array<u32>;
var<workgroup> nearest: atomic<u32>;
var<workgroup> earlier: atomic<u32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = group.y * groups.x + group.x;
    if (i >= k.count) {
        return;
    }
    if (local == 0u) {
        atomicStore(&nearest, k.count);
        atomicStore(&earlier, 0u);
    }
    workgroupBarrier();
    let wanted = index[k.index_start + i];
    for (var j = i + 1u + local; j < atomicLoad(&nearest); j += 64u) {
        if (index[k.index_start + j] == wanted) {
            atomicMin(&nearest, j);
        }
    }
    for (var j = local; j < i && atomicLoad(&earlier) == 0u; j += 64u) {
        if (index[k.index_start + j] == wanted) {
            atomicStore(&earlier, 1u);
        }
    }
    workgroupBarrier();
    if (local == 0u) {
        next[i] = atomicLoad(&nearest);
        follows[i] = atomicLoad(&earlier);
    }
}
