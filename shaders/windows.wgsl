// How windows lie over planes of [height, width] elements: place (a, b) of [rows, columns] sees the
// elements (a, b) STRIDE - PADDING + (i, j) DILATION, as far as they exist.
//
// The text before this one defines WORKGROUP, KERNEL, STRIDE, PADDING and DILATION, of each axis, and
// the output, `written`. One of the kernels follows it.

struct Scalars {
    size: u32, // of the output
    height: i32,
    width: i32,
    rows: i32,
    columns: i32,
    factor: f32,
}

var<immediate> k: Scalars;

fn is_nan1(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// By their bits: NaN equals NaN, and 0 equals -0.
fn is_same(x: f32, y: f32) -> bool {
    let a = bitcast<u32>(x);
    let b = bitcast<u32>(y);
    return a == b || (is_nan1(x) && is_nan1(y)) || ((a | b) & 0x7fffffffu) == 0u;
}

fn is_element(at: vec2<i32>) -> bool {
    return all(at >= vec2<i32>(0)) && at.x < k.height && at.y < k.width;
}

// The place whose window has the element `at` as its (i, j), or -1 if there is none.
fn place_of(at: vec2<i32>, ij: vec2<i32>) -> vec2<i32> {
    let from_start = at + PADDING - ij * DILATION;
    let place = from_start / STRIDE;
    let is_one = all(from_start >= vec2<i32>(0)) && all(place * STRIDE == from_start);
    return select(vec2<i32>(-1), place, is_one && place.x < k.rows && place.y < k.columns);
}
