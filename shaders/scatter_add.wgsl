// to[index[i]] += from[i] for rows of `width` elements, equal numbers added in the order of i.
//
// The invocation of (i, column) works only if i is the first position of its number. It follows the
// links to the others, so that every sum has one writer and a fixed order, and no atomics. Runs of 64
// are added up first: added one by one, many small numbers would be lost next to their sum.
//
// The text before this one defines the types Source, Target and Sum, and the functions
// `source_value`, `target_value` and `stored`.

struct Scalars {
    count: u32,
    width: u32,
    rows: u32,
    positions: u32,
    index_start: u32,
    from_start: u32,
    to_start: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> from_: array<Source>;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read> next: array<u32>;
@group(0) @binding(3) var<storage, read> follows: array<u32>;
@group(0) @binding(4) var<storage, read_write> to_: array<Target>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.y * groups.x + group.x) * 64u + local;
    if (i >= k.count) {
        return;
    }
    let column = i % k.width;
    var position = i / k.width;
    if (follows[position] != 0u) {
        return;
    }
    let row = min(index[k.index_start + position], k.rows - 1u);
    let at = k.to_start + row * k.width + column;
    var sum = Sum(0);
    var run = Sum(0);
    var count = 0u;
    while (position < k.positions) {
        run += source_value(from_[k.from_start + position * k.width + column]);
        count++;
        if (count % 64u == 0u) {
            sum += run;
            run = Sum(0);
        }
        position = next[position];
    }
    to_[at] = stored(target_value(to_[at]) + (sum + run));
}
