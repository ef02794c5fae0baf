// Blocks of up to 256 numbers to 8-bit codes, and a scale for each block: one workgroup per block.
//
// A lane takes four adjacent elements, hence one word of codes. Magnitudes are compared as
// integers, by their bits, so that neither NaN nor small numbers depend on the device; the only
// arithmetic is the product of the scale and the bound between two levels.

const LANES = 64u;
const LOW = 0x7fffffffu;
const INFINITE = 0x7f800000u;
const LARGEST = 0x7f7fffffu;
const NAN = 0x7fc00000u;

struct Scalars {
    first: u32, // of the blocks to quantize
    last: u32,
    start: u32, // the element of the first value
    ranks: u32,
    is_signed: u32,
    floor: u32, // the bits of the smallest scale
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> values: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> blocks: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> bounds: array<f32>;
@group(0) @binding(3) var<storage, read_write> codes: array<u32>;
@group(0) @binding(4) var<storage, read_write> scales: array<u32>;

var<workgroup> tops: array<u32, LANES>;
var<workgroup> least: array<u32, 256>; // the bits of the smallest magnitude of each rank

// The magnitudes of four elements, NaN above all, and 0 for elements that do not count.
fn magnitudes(bits: vec4<u32>, inside: vec4<bool>) -> vec4<u32> {
    let size = bits & vec4<u32>(LOW);
    let is_negative = (bits != size) & (size <= vec4<u32>(INFINITE));
    let counts = inside & !(is_negative & vec4<bool>(k.is_signed == 0u));
    return select(vec4<u32>(0u), size, counts);
}

// The number of entries of `least` that a magnitude reaches, not counting the first.
fn rank_of(size: u32) -> u32 {
    var rank = 0u;
    for (var half = 128u; half > 0u; half /= 2u) {
        rank += select(0u, half, least[rank + half] <= size);
    }
    return rank;
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let number = k.first + group.y * groups.x + group.x;
    let block = blocks[min(number, k.last - 1u)];
    let element = block.x + 4u * local;
    let inside = vec4<u32>(element) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(block.y);
    let at = select(block.x, element, element < block.y);
    let bits = values[(at - k.start) / 4u];
    let size = magnitudes(bits, inside);
    tops[local] = max(max(size.x, size.y), max(size.z, size.w));
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (local < half) {
            tops[local] = max(tops[local], tops[local + half]);
        }
    }
    workgroupBarrier();
    let top = tops[0];
    let is_nan = top > INFINITE;
    let is_dead = is_nan || top < k.floor;
    let scale = select(min(top, LARGEST), 0u, is_dead);
    for (var i = local; i < 256u; i += LANES) {
        let bound = bitcast<u32>(bounds[min(i, k.ranks - 1u)] * bitcast<f32>(scale));
        least[i] = select(max(bound, 1u), 0xffffffffu, is_dead || i >= k.ranks);
    }
    workgroupBarrier();
    let finite = min(size, vec4<u32>(LARGEST));
    var rank = vec4<u32>(
        rank_of(finite.x), rank_of(finite.y), rank_of(finite.z), rank_of(finite.w));
    let is_below = (bits > vec4<u32>(LOW)) & (rank > vec4<u32>(0u));
    rank |= select(vec4<u32>(0u), vec4<u32>(0x80u), is_below & vec4<bool>(k.is_signed != 0u));
    if (number >= k.last) {
        return;
    }
    // The gap after a slot's last element, up to a multiple of 64, belongs to its block.
    if (element < (block.y + 63u) / 64u * 64u) {
        codes[element / 4u] = rank.x | (rank.y << 8u) | (rank.z << 16u) | (rank.w << 24u);
    }
    if (local == 0u) {
        scales[number] = select(scale, NAN, is_nan);
    }
}
