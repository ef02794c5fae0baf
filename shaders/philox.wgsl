// Philox4x32-10: words `first` * 4, ... of one stream, four per invocation.
//
// `behind` holds the number of blocks of four words to go back from there: its low 16 bits, then the
// others.
//
// Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC'11.

struct Scalars {
    size: u32,
    to_start: u32,
    key_low: u32,
    key_high: u32,
    first_low: u32,
    first_high: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read_write> to_: array<u32>;
@group(0) @binding(1) var<storage, read> behind: array<u32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.y * groups.x + group.x) * 64u + local;
    if (4u * i >= k.size) {
        return;
    }
    let back = behind[0] + (behind[1] << 16u);
    let first_low = k.first_low - back;
    let first_high = k.first_high - select(0u, 1u, k.first_low < back);
    let low = first_low + i;
    var c = vec4<u32>(low, first_high + select(0u, 1u, low < i), 0u, 0u);
    var key = vec2<u32>(k.key_low, k.key_high);
    for (var round_ = 0u; round_ < 10u; round_++) {
        let p = wide_product(0xD2511F53u, c.x);
        let q = wide_product(0xCD9E8D57u, c.z);
        c = vec4<u32>(q.x ^ c.y ^ key.x, q.y, p.x ^ c.w ^ key.y, p.y);
        key += vec2<u32>(0x9E3779B9u, 0xBB67AE85u);
    }
    let at = k.to_start + 4u * i;
    let left = k.size - 4u * i;
    to_[at] = c.x;
    if (left > 1u) {
        to_[at + 1u] = c.y;
    }
    if (left > 2u) {
        to_[at + 2u] = c.z;
    }
    if (left > 3u) {
        to_[at + 3u] = c.w;
    }
}
