// Looks for NaN and infinity among the gradients of one section, 64 bytes to an invocation. A word
// is a float32, or two of float16: `each` elements lie in a vector. A float32 of the magnitude
// `limit`, its bits, or more counts as infinite.
//
// Finding one is rare: it says so in the control block, and sets the bit of the parameter it belongs
// to, whose slots begin at multiples of 64 elements. Bits are or-ed together, so the order in which
// invocations find them does not matter.
//
// If the sum of their squares is known and under that of the limit, so are they, and nothing is read.
// If it is infinite, a float32 of at least 1e14 is to blame as well: there are less than 1e10 elements, so
// one of them is so large or infinite. NaN says that the sum is not known, or that there is a NaN.

struct Scalars {
    n: u32,
    parameters: u32,
    first: u32,
    bits: u32,
    each: u32,
    limit: u32,
    limit_squared: u32,
}

const BAD = 1u;
const MAGNITUDE = 0x7fffffffu; // all bits but the sign
const INFINITY = 0x7f800000u;
const LARGE = 0x56b5e621u; // 1e14

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> gradient: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> starts: array<u32>;
@group(0) @binding(2) var<storage, read> squares: array<u32>;
@group(0) @binding(3) var<storage, read_write> control: array<atomic<u32>>;

// The number of the parameter that an element belongs to: the last that starts at it or before.
fn parameter_of(element: u32) -> u32 {
    var low = 0u;
    var high = k.parameters;
    while (high - low > 1u) {
        let middle = (low + high) / 2u;
        if (starts[middle] <= element) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

fn blame(i: u32) {
    let number = k.first + parameter_of(k.each * i);
    let word = k.bits + number / 32u;
    let bit = 1u << (number % 32u);
    if ((atomicLoad(&control[word]) & bit) == 0u) {
        atomicOr(&control[word], bit);
    }
    if (atomicLoad(&control[BAD]) == 0u) {
        atomicStore(&control[BAD], 1u);
    }
}

fn is_bad(words: vec4<u32>) -> bool {
    if (k.each == 8u) {
        let low = vec4<u32>(0x7c00u);
        let high = vec4<u32>(0x7c000000u);
        return any((words & low) == low) || any((words & high) == high);
    }
    let overflowed = (squares[0] & MAGNITUDE) == INFINITY;
    let limit = select(k.limit, min(k.limit, LARGE), overflowed);
    return any((words & vec4<u32>(MAGNITUDE)) >= vec4<u32>(limit));
}

const LANES = 256u;
const EACH = 4u; // loads of an invocation: fewer and larger workgroups read faster

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    if ((squares[0] & MAGNITUDE) < k.limit_squared) {
        return;
    }
    let start = (group.y * groups.x + group.x) * LANES * EACH + local;
    let last = k.n - 1u;
    // Beyond the end the last element is looked at again; all loads are on their way at once.
    let i0 = min(start, last);
    let i1 = min(start + LANES, last);
    let i2 = min(start + 2u * LANES, last);
    let i3 = min(start + 3u * LANES, last);
    let bad0 = is_bad(gradient[i0]);
    let bad1 = is_bad(gradient[i1]);
    let bad2 = is_bad(gradient[i2]);
    let bad3 = is_bad(gradient[i3]);
    if (bad0) {
        blame(i0);
    }
    if (bad1) {
        blame(i1);
    }
    if (bad2) {
        blame(i2);
    }
    if (bad3) {
        blame(i3);
    }
}
