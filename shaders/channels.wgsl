// How workgroups share the channels of [batch, channels, places]: each takes one chunk of WIDE
// adjacent channels, with LANES invocations per channel, STEP elements at a time.
//
// The text before this one defines LANES, WIDE, STEP, the type Value of STEP elements, and `added`,
// their sum. The text after it defines `combined`, which combines the results of two invocations for
// one channel. The split depends only on the shape.

struct Scalars {
    count: u32, // elements of a channel
    channels: u32,
    places: u32,
    chunks: u32,
    chunk: u32, // elements
    eps: f32,
}

struct Part {
    channel: u32,
    number: u32, // of the chunk
    lane: u32,
    start: u32, // of this invocation
    stop: u32,
    is_inside: bool,
}

var<immediate> k: Scalars;
var<workgroup> shared_values: array<vec4<f32>, LANES * WIDE>;

fn part_of(group: vec3<u32>, groups: vec3<u32>, local: u32) -> Part {
    let linear = group.y * groups.x + group.x;
    let wanted = linear / k.chunks * WIDE + local % WIDE;
    let number = linear % k.chunks;
    let lane = local / WIDE;
    let start = number * k.chunk + lane * STEP;
    let is_inside = wanted < k.channels;
    let stop = select(0u, min(k.count, (number + 1u) * k.chunk), is_inside);
    return Part(min(wanted, k.channels - 1u), number, lane, start, stop, is_inside);
}

// The position of element `i` of a channel.
fn place(i: u32, channel: u32) -> u32 {
    let example = i / k.places;
    return ((example * k.channels + channel) * k.places + i - example * k.places) / STEP;
}

// 1 / deviation of a channel; NaN where the squares overflow: divided by infinity all would be 0.
fn scale_of(squares: f32) -> f32 {
    let scale = 1.0 / sqrt(squares / f32(k.count) + k.eps);
    let overflows = (bitcast<u32>(squares) & 0x7fffffffu) >= 0x7f800000u;
    return bitcast<f32>(select(bitcast<u32>(scale), 0x7fc00000u, overflows));
}

// The combined result of all invocations of a channel. Every invocation must call it, once.
fn together(value: vec4<f32>, local: u32) -> vec4<f32> {
    let lane = local / WIDE;
    shared_values[local] = value;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            shared_values[local] = combined(shared_values[local], shared_values[local + half * WIDE]);
        }
    }
    workgroupBarrier();
    return shared_values[local % WIDE];
}
