// From the sums of parts to the sum of all slots, added to other memory's if wanted: one workgroup.
//
// The text before this one defines LANES and ROWS = 1. See slot_sums.wgsl.

struct Scalars {
    parts: u32,
    added: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> sums: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) local: u32) {
    var sum = 0.0;
    for (var i = local; i < k.parts; i += LANES) {
        sum += sums[i];
    }
    let total = row_sum(sum, local);
    if (local == 0u) {
        out[0] = select(total, out[0] + total, k.added != 0u);
    }
}
