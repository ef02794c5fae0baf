// What the cells of recurrent networks share. An invocation has one element of one sample's state.
//
// Sequences are (time, batch, features), states (time + 1, batch, hidden), what is of one step alone
// (batch, features); the gates of an element are `hidden` apart. In front of this text stand
// HAS_LENGTHS, IS_RELU and, where there are lengths, their binding.

struct Scalars {
    count: u32,
    batch: u32,
    hidden: u32,
    time: u32,
    source: u32,
    target_: u32,
    given_start: u32,
    lengths_start: u32,
}

var<immediate> k: Scalars;

struct Element {
    is_inside: bool,
    sample: u32,
    column: u32,
    before: u32,  // its place among the states that the step reads
    after: u32,
    goes_on: bool,
}

fn element(group: vec3<u32>, groups: vec3<u32>, local: u32) -> Element {
    let wanted = (group.y * groups.x + group.x) * 64u + local;
    let i = min(wanted, k.count - 1u);
    let sample = i / k.hidden;
    let before = k.source * k.count + i;
    return Element(
        wanted < k.count, sample, i % k.hidden, before, k.target_ * k.count + i, lasts(sample)
    );
}

// Where gate number `gate` of an element is, of so many gates, at the step k.time.
fn gate_at(e: Element, gate: u32, gates: u32) -> u32 {
    return ((k.time * k.batch + e.sample) * gates + gate) * k.hidden + e.column;
}

// The same where there is one step.
fn row_at(e: Element, gate: u32, gates: u32) -> u32 {
    return (e.sample * gates + gate) * k.hidden + e.column;
}

fn tanh1(x: f32) -> f32 {
    return hyperbolic_tangent(vec4<f32>(x)).x;
}
