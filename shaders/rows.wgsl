// The part that the softmaxes share, after row_sum.wgsl. Every invocation must call each function.

struct Scalars {
    rows: u32,
    columns: u32,
    start0: u32,
    start1: u32,
    start2: u32,
    start3: u32,
    smoothing: f32,
    ignored: u32,
    places: u32,
    start4: u32,
    step: u32,
    factor: f32,
}

var<immediate> k: Scalars;

// The row that an invocation works on. It takes the elements lane, lane + LANES, ... below stop,
// which is 0 if there is no row left: barriers need every invocation. Element j of a row is at
// first + j * places: if the class axis comes before others, rows are interleaved.
struct Row {
    number: u32,
    first: u32,
    lane: u32,
    stop: u32,
}

fn row_of(group: vec3<u32>, groups: vec3<u32>, local: u32) -> Row {
    let wanted = (group.y * groups.x + group.x) * ROWS + local / LANES;
    let number = min(wanted, k.rows - 1u);
    let stop = select(k.columns, 0u, wanted >= k.rows);
    let first = number / k.places * k.columns * k.places + number % k.places;
    return Row(number, first, local % LANES, stop);
}

// The value of a row, given its target: 0 if it is ignored, NaN if it is no class.
fn target_share(number: u32, value: f32) -> f32 {
    // NaN by its bits: a compiler may refuse one that it can compute itself.
    let known = bitcast<f32>(select(0x7fc00000u, bitcast<u32>(value), number < k.columns));
    return select(known, 0.0, number == k.ignored);
}

// x is at most 0, but for rounding.
fn exp1(x: f32) -> f32 {
    return exponential_of_negative(vec4<f32>(x)).x;
}

fn log1(x: f32) -> f32 {
    return logarithm(vec4<f32>(x)).x;
}
