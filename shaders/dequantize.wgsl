// The values of 8-bit codes: each byte's level times the scale of its block. One workgroup per
// block, one lane per word of codes; see quantize.wgsl.

const LANES = 64u;
const INFINITE = 0x7f800000u;
const NAN = 0x7fc00000u;

struct Scalars {
    first: u32,
    last: u32,
    start: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> codes: array<u32>;
@group(0) @binding(1) var<storage, read> scales: array<u32>;
@group(0) @binding(2) var<storage, read> blocks: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> levels: array<f32>;
@group(0) @binding(4) var<storage, read_write> values: array<vec4<u32>>;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let number = k.first + group.y * groups.x + group.x;
    if (number >= k.last) {
        return;
    }
    let block = blocks[number];
    let element = block.x + 4u * local;
    if (element >= (block.y + 63u) / 64u * 64u) {
        return;
    }
    let scale = scales[number];
    let four = (vec4<u32>(codes[element / 4u]) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0xffu);
    let level = vec4<f32>(levels[four.x], levels[four.y], levels[four.z], levels[four.w]);
    let value = bitcast<vec4<u32>>(level * bitcast<f32>(min(scale, INFINITE - 1u)));
    let inside = vec4<u32>(element) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(block.y);
    let found = select(value, vec4<u32>(NAN), vec4<bool>(scale > INFINITE));
    values[(element - k.start) / 4u] = select(vec4<u32>(0u), found, inside);
}
