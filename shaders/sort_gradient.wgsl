// into[row, indices[row, i]] = gradient[row, i]: within a row, every number occurs at most once.

struct Scalars {
    size: u32,
    count: u32,
    length: u32,
    indices_start: u32,
    gradient_start: u32,
    into_start: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> indices: array<u32>;
@group(0) @binding(1) var<storage, read> gradient: array<Stored>;
@group(0) @binding(2) var<storage, read_write> into: array<Stored>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.y * groups.x + group.x) * 256u + local;
    if (i >= k.size) {
        return;
    }
    let at = min(indices[k.indices_start + i], k.length - 1u);
    into[k.into_start + i / k.count * k.length + at] = gradient[k.gradient_start + i];
}
