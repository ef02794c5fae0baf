// Searches the gradients of one section for NaN and infinity, 64 bytes per invocation. A word is one
// float32 or two float16; a vector holds `each` elements. A float32 whose magnitude reaches `limit`,
// given by its bits, counts as infinite.
//
// On a find, which is rare, an invocation sets BAD in the control block and the bit of the element's
// parameter, whose slots start at multiples of 64 elements. Bits are or-ed together, so the order of
// the finds does not matter.
//
// If the sum of squares is known and below the limit's square, all elements are fine and nothing is
// read. If it is infinite, a float32 of at least 1e14 counts as bad too: there are fewer than 1e10
// elements, so one of them must be that large or infinite. A sum of NaN means that it is unknown, or
// that there is a NaN.

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

// The number of an element's parameter: the last one that starts at or before the element.
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
const EACH = 4u; // loads per invocation: fewer, larger workgroups read faster

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
    // Past the end the last element is read again; all loads are in flight at once.
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
