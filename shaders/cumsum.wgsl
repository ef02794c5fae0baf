// Cumulative sums along the middle axis of [outer, length, inner], from its end if k.reverse is 1.
//
// A workgroup takes one line of the axis, in chunks of LANES * RUN elements: each lane adds up a run,
// the lanes' sums are added up in log2(LANES) rounds, and a run continues from the sum before it.
// With LANES = 1 an invocation walks a line alone. The order depends only on the shape.
//
// The text before this one defines LANES, RUN, WORKGROUP, the types Stored and Value, `value` (of a
// stored element) and `stored` (of a value).

struct Scalars {
    lines: u32,
    length: u32,
    inner: u32,
    reverse: u32,
    from_start: u32,
    to_start: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> source: array<Stored>;
@group(0) @binding(1) var<storage, read_write> target_: array<Stored>;

var<workgroup> sums: array<Value, LANES>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let linear = group.y * groups.x + group.x;
    let line = select(linear, linear * WORKGROUP + local, LANES == 1u);
    let lane = select(local, 0u, LANES == 1u);
    let at = min(line, k.lines - 1u);
    let first = at / k.inner * k.length * k.inner + at % k.inner;
    let stop = select(k.length, 0u, line >= k.lines);
    var before = Value(0);
    for (var start = 0u; start < k.length; start += LANES * RUN) {
        let from_ = start + lane * RUN;
        var total = Value(0);
        for (var r = from_; r < min(from_ + RUN, stop); r++) {
            total += value(source[k.from_start + first + place(r)]);
        }
        var running = before;
        if (LANES > 1u) {
            workgroupBarrier();
            sums[lane] = total;
            for (var distance = 1u; distance < LANES; distance *= 2u) {
                workgroupBarrier();
                var earlier = Value(0);
                if (lane >= distance) {
                    earlier = sums[lane - distance];
                }
                workgroupBarrier();
                sums[lane] += earlier;
            }
            workgroupBarrier();
            if (lane > 0u) {
                running += sums[lane - 1u];
            }
            total = sums[LANES - 1u];
        }
        before += total;
        for (var r = from_; r < min(from_ + RUN, stop); r++) {
            running += value(source[k.from_start + first + place(r)]);
            target_[k.to_start + first + place(r)] = stored(running);
        }
    }
}

// The position of element r of a line.
fn place(r: u32) -> u32 {
    return select(r, k.length - 1u - r, k.reverse == 1u) * k.inner;
}
