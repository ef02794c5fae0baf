// From the sums of parts to the sum of each slot, written once for each of its rows of 64 elements.
//
// A workgroup writes the rows of one part; each adds up all parts of its slot, in the same order, as
// that is faster than a third dispatch. See slot_sums.wgsl.

const ROW = 64u;

struct Scalars {
    parts: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> sums: array<f32>;
@group(0) @binding(1) var<storage, read> parts: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let number = group.y * groups.x + group.x;
    let part = parts[min(number, k.parts - 1u)];
    var sum = 0.0;
    for (var i = local; i < part.w; i += LANES) {
        sum += sums[part.z + i];
    }
    let total = row_sum(sum, local);
    let stop = select((part.y + ROW - 1u) / ROW, 0u, number >= k.parts);
    for (var row = part.x / ROW + local; row < stop; row += LANES) {
        out[row] = total;
    }
}
