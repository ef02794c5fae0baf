// Decides whether a step is applied, and with which scalars: one workgroup.
//
// The control block holds the input of a step's kernels, and the report for the host:
//   0 GO      whether this step is applied
//   1 BAD     whether a gradient of this step is not finite
//   2 CLOSED  whether all steps are refused until the host has learned of a bad one
//   3 SEEN    the number of steps decided
//   4 .. 7    a bit for each of the last 128 of them: 1 if it was refused
//   8 ..      for each section, the number of steps applied to it,
//             then a bit for each parameter that caused a refusal,
//             then the same bits while they are being gathered,
//             then for each section the scalars of this step.
// The table holds the scalars of `rows` consecutive steps of each section, step t in row t % rows.
// A section without a gradient takes no part in a step; `ready` has a bit for each of up to 128.

struct Scalars {
    ready: vec4<u32>,
    first: u32,
    count: u32,
    sections: u32,
    words: u32,
    width: u32,
    rows: u32,
    closes: u32,
    is_last: u32,
}

const GO = 0u;
const BAD = 1u;
const CLOSED = 2u;
const SEEN = 3u;
const HISTORY = 4u;
const COUNTS = 8u;
const WORKGROUP = 64u;

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> table: array<u32>;
@group(0) @binding(1) var<storage, read_write> control: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) local: u32) {
    let was_closed = control[CLOSED] != 0u;
    let is_refused = control[BAD] != 0u || was_closed;
    let blamed = COUNTS + k.sections;
    let gathered = blamed + k.words;
    let scalars = gathered + k.words;
    if (!is_refused) {
        for (var i = local; i < k.count; i += WORKGROUP) {
            if ((k.ready[i / 32u] & (1u << (i % 32u))) != 0u) {
                let section = k.first + i;
                let t = control[COUNTS + section] + 1u;
                control[COUNTS + section] = t;
                let row = (section * k.rows + t % k.rows) * k.width;
                for (var j = 0u; j < k.width; j++) {
                    control[scalars + section * k.width + j] = table[row + j];
                }
            }
        }
    }
    if (k.is_last == 0u) {
        return;
    }
    if (is_refused) {
        for (var i = local; i < k.words; i += WORKGROUP) {
            if (!was_closed) {
                control[blamed + i] = control[gathered + i];
            }
            control[gathered + i] = 0u;
        }
    }
    workgroupBarrier();
    if (local == 0u) {
        let seen = control[SEEN];
        let word = HISTORY + (seen / 32u) % 4u;
        let bit = 1u << (seen % 32u);
        control[word] = select(control[word] & ~bit, control[word] | bit, is_refused);
        control[SEEN] = seen + 1u;
        control[CLOSED] = select(u32(was_closed), 1u, is_refused && k.closes != 0u);
        control[BAD] = 0u;
        control[GO] = u32(!is_refused);
    }
}
