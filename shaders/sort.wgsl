// Bitonic sort of rows, within blocks of BLOCK pairs of a key and an element's number.
//
// Batcher, "Sorting networks and their applications", 1968. The number decides between equal keys,
// so that equal elements keep their order. A row longer than a block occupies several, up to a power
// of two, padded with the largest pair. IS_FIRST: make pairs of the elements and sort each block,
// alternately upwards and downwards. Otherwise read pairs and do the last rounds of a merge of runs
// of k.size. IS_LAST: write the first k.count of a row as elements and numbers, otherwise all as
// pairs.
//
// The text before this one defines BLOCK, LANES, IS_FIRST, IS_LAST, the type Stored, `key` of a
// stored element, and the bindings of pairs or, if IS_FIRST and IS_LAST, none.

struct Scalars {
    length: u32,
    blocks: u32,
    count: u32,
    size: u32,
    descending: u32,
    x_start: u32,
    values_start: u32,
    indices_start: u32,
    groups: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> x: array<Stored>;
@group(0) @binding(1) var<storage, read_write> values: array<Stored>;
@group(0) @binding(2) var<storage, read_write> indices: array<u32>;
@group(0) @binding(3) var<storage, read_write> pairs: array<vec2<u32>>;

var<workgroup> block: array<vec2<u32>, BLOCK>;

fn pair(row: u32, number: u32) -> vec2<u32> {
    if (number >= k.length) {
        return vec2<u32>(0xffffffffu);
    }
    let ascending = key(x[k.x_start + row * k.length + number]);
    return vec2<u32>(select(ascending, ~ascending, k.descending == 1u), number);
}

fn exchange(low: u32, high: u32, is_upwards: bool) {
    let a = block[low];
    let b = block[high];
    let is_later = a.x > b.x || (a.x == b.x && a.y > b.y);
    if (is_later == is_upwards) {
        block[low] = b;
        block[high] = a;
    }
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let number = group.y * groups.x + group.x;
    if (number >= k.groups) {
        return;
    }
    let row = number / k.blocks;
    let base = number % k.blocks * BLOCK;
    for (var j = local; j < BLOCK; j += LANES) {
        if (IS_FIRST) {
            block[j] = pair(row, base + j);
        } else {
            block[j] = pairs[number * BLOCK + j];
        }
    }
    for (var size = select(k.size, 2u, IS_FIRST); size <= select(k.size, BLOCK, IS_FIRST); size *= 2u) {
        for (var distance = min(size, BLOCK) / 2u; distance > 0u; distance /= 2u) {
            workgroupBarrier();
            for (var j = local; j < BLOCK / 2u; j += LANES) {
                let low = 2u * j - (j & (distance - 1u));
                exchange(low, low + distance, ((base + low) & size) == 0u);
            }
        }
    }
    workgroupBarrier();
    for (var j = local; j < BLOCK; j += LANES) {
        if (!IS_LAST) {
            pairs[number * BLOCK + j] = block[j];
        } else if (base + j < k.count) {
            let found = block[j].y;
            let at = row * k.count + base + j;
            values[k.values_start + at] = x[k.x_start + row * k.length + found];
            indices[k.indices_start + at] = found;
        }
    }
}
