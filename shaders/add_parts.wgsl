// Adds up k.parts matrices of k.size elements, stored one after another, in order.
//
// Sixteen lanes share an element: each adds up every sixteenth part, then the first adds up these.
// The text before this one defines Result, and `stored`, the stored form of a sum.

struct Scalars {
    size: u32,
    parts: u32,
    to_start: u32,
}

const SHARED = 16u;
const ELEMENTS = 16u;

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> source: array<f32>;
@group(0) @binding(1) var<storage, read_write> target_: array<Result>;

var<workgroup> sums: array<f32, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.y * groups.x + group.x) * ELEMENTS + local % ELEMENTS;
    let held = min(i, k.size - 1u);
    var sum = 0.0;
    for (var part = local / ELEMENTS; part < k.parts; part += SHARED) {
        sum += source[part * k.size + held];
    }
    sums[local] = sum;
    workgroupBarrier();
    if (local < ELEMENTS && i < k.size) {
        for (var other = 1u; other < SHARED; other++) {
            sum += sums[other * ELEMENTS + local];
        }
        target_[k.to_start + i] = stored(sum);
    }
}
