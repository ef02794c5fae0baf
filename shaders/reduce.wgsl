// Reduction of the middle axis of [outer, length, inner], in chunks of the axis.
//
// With LANES > 1 a workgroup takes one chunk of one row (inner is 1): each lane combines every
// LANES-th element, then a tree of fixed shape combines the lanes. With LANES = 1 an invocation takes
// one chunk of one column. The result has the shape [outer, chunks, inner]. No atomics: the order in
// which elements are combined depends only on the shape.
//
// The text before this one defines LANES, the types Stored and Value, `load` (element to value),
// `combine`, NEUTRAL, and `result` (value to stored form).

struct Scalars {
    outer: u32,
    length: u32,
    inner: u32,
    chunks: u32,
    chunk: u32,
    from_start: u32,
    to_start: u32,
    factor: f32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> source: array<Stored>;
@group(0) @binding(1) var<storage, read_write> target_: array<Result>;

var<workgroup> lanes: array<Value, LANES>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let linear = group.y * groups.x + group.x;
    let lane = select(local, 0u, LANES == 1u);
    let column = select(linear, linear * WORKGROUP + local, LANES == 1u);
    let columns = k.outer * k.chunks * k.inner;
    let at = min(column, columns - 1u);
    let inner = at % k.inner;
    let chunk = (at / k.inner) % k.chunks;
    let outer = at / (k.inner * k.chunks);
    let stop = min(k.length, (chunk + 1u) * k.chunk);
    var value = NEUTRAL;
    for (var r = chunk * k.chunk + lane; r < stop; r += LANES) {
        let i = (outer * k.length + r) * k.inner + inner;
        value = combine(value, load(source[k.from_start + i], r));
    }
    if (LANES > 1u) {
        lanes[lane] = value;
        for (var half = LANES / 2u; half > 0u; half /= 2u) {
            workgroupBarrier();
            if (lane < half) {
                lanes[lane] = combine(lanes[lane], lanes[lane + half]);
            }
        }
        value = lanes[0];
    }
    if (column < columns && lane == 0u) {
        target_[k.to_start + column] = result(value);
    }
}
