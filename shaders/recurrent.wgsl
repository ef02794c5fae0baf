// What the cells of recurrent networks share. An invocation has one element of one sample's state.
//
// Sequences are (time, batch, features), states (time + 1, batch, hidden), what is of one step alone
// (batch, features); the gates of an element are `hidden` apart. In front of this text stand
// IS_RELU, `lasts` and, where there are lengths, their binding; behind it stands `cell_step`.

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
    sample: u32,
    column: u32,
    before: u32,  // its place among the states that the step reads
    after: u32,
    goes_on: bool,
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.y * groups.x + group.x) * 64u + local;
    if (i < k.count) {
        let sample = i / k.hidden;
        cell_step(Element(
            sample, i % k.hidden, k.source * k.count + i, k.target_ * k.count + i, lasts(sample)
        ));
    }
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
