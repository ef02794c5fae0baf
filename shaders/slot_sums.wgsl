// The sum of one part of a slot, or of its squares: one workgroup per part.
//
// The text before this one defines LANES, ROWS = 1, the type Stored of four adjacent elements, `load`
// and SQUARED. A part is (first element, last element + 1, the slot's first part, the slot's number of
// parts). Elements after its last one are not counted.

struct Scalars {
    parts: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> source: array<Stored>;
@group(0) @binding(1) var<storage, read> parts: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let number = group.y * groups.x + group.x;
    let part = parts[min(number, k.parts - 1u)];
    let stop = (part.y + 3u) / 4u;
    var sum = vec4<f32>(0.0);
    for (var i = part.x / 4u + local; i < stop; i += LANES) {
        let inside = vec4<u32>(0u, 1u, 2u, 3u) + 4u * i < vec4<u32>(part.y);
        let x = select(vec4<f32>(0.0), load(source[i]), inside);
        sum += select(x, x * x, SQUARED);
    }
    let total = row_sum((sum.x + sum.y) + (sum.z + sum.w), local);
    if (local == 0u && number < k.parts) {
        sums[number] = total;
    }
}
