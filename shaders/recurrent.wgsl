// The part that the cells of recurrent networks share. An invocation handles one element of one
// sample's state.
//
// Sequences are (time, batch, features), states (time + 1, batch, hidden), arrays of one step
// (batch, features); the gates of an element are `hidden` apart. The text before this one defines
// IS_RELU, `lasts` and, if there are lengths, their binding; the text after it defines `cell_step`.

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
    before: u32,  // its position among the states that the step reads
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

// The position of an element's gate number `gate` of `gates`, at step k.time.
fn gate_at(e: Element, gate: u32, gates: u32) -> u32 {
    return ((k.time * k.batch + e.sample) * gates + gate) * k.hidden + e.column;
}

// The same in an array of one step.
fn row_at(e: Element, gate: u32, gates: u32) -> u32 {
    return (e.sample * gates + gate) * k.hidden + e.column;
}

fn tanh1(x: f32) -> f32 {
    return hyperbolic_tangent(vec4<f32>(x)).x;
}
