// The gradient of the rows that norm.wgsl read: with n = (x - mean) scale and h = g weight,
// out = (h - mean(h) - n mean(h n)) scale; mean(h) is absent if the rows were not CENTERED. ADDING:
// `bypassing`, a gradient that bypasses the norm, is added.
// Rows are read as Element, of WIDTH adjacent numbers, and computed as Value, which `stored` converts
// back and `added` sums.

struct Scalars {
    rows: u32,
    columns: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> weight: array<Element>;
@group(0) @binding(2) var<storage, read> statistics: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> g: array<Element>;
@group(0) @binding(4) var<storage, read> bypassing: array<Element>;
@group(0) @binding(5) var<storage, read_write> out: array<Element>;

fn h(at: u32, column: u32) -> Value {
    if (WEIGHTED) {
        return Value(g[at]) * Value(weight[column]);
    }
    return Value(g[at]);
}

@compute @workgroup_size(LANES * ROWS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let wanted = (group.y * groups.x + group.x) * ROWS + local / LANES;
    let row = min(wanted, k.rows - 1u);
    let elements = k.columns / WIDTH;
    let stop = select(elements, 0u, wanted >= k.rows);
    let lane = local % LANES;
    let first = row * elements;
    let mean = statistics[row].x;
    let scale = statistics[row].y;
    var sum = Value();
    var products = Value();
    for (var j = lane; j < stop; j += LANES) {
        let value = h(first + j, j);
        sum += value;
        products += value * (Value(x[first + j]) - mean) * scale;
    }
    let mean_product = row_sum(added(products), local) / f32(k.columns);
    var mean_h = 0.0;
    if (CENTERED) {
        mean_h = row_sum(added(sum), local) / f32(k.columns);
    }
    for (var j = lane; j < stop; j += LANES) {
        let normalized = (Value(x[first + j]) - mean) * scale;
        var share = (h(first + j, j) - mean_h - normalized * mean_product) * scale;
        if (ADDING) {
            share += Value(bypassing[first + j]);
        }
        out[first + j] = stored(share);
    }
}
