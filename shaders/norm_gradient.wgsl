// The gradient of the rows that norm.wgsl read: with n = (x - mean) scale and h = g weight,
// out = (h - mean(h) - n mean(h n)) scale; mean(h) is absent if the rows were not CENTERED. ADDING:
// `added`, a gradient that bypasses the norm, is added.
// Arrays hold Element; `stored` converts a number to it.

struct Scalars {
    rows: u32,
    columns: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> weight: array<Element>;
@group(0) @binding(2) var<storage, read> statistics: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> g: array<Element>;
@group(0) @binding(4) var<storage, read> added: array<Element>;
@group(0) @binding(5) var<storage, read_write> out: array<Element>;

fn h(at: u32, column: u32) -> f32 {
    if (WEIGHTED) {
        return f32(g[at]) * f32(weight[column]);
    }
    return f32(g[at]);
}

@compute @workgroup_size(LANES * ROWS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let wanted = (group.y * groups.x + group.x) * ROWS + local / LANES;
    let row = min(wanted, k.rows - 1u);
    let stop = select(k.columns, 0u, wanted >= k.rows);
    let lane = local % LANES;
    let first = row * k.columns;
    let mean = statistics[row].x;
    let scale = statistics[row].y;
    var sum = 0.0;
    var product = 0.0;
    for (var j = lane; j < stop; j += LANES) {
        let value = h(first + j, j);
        sum += value;
        product += value * (f32(x[first + j]) - mean) * scale;
    }
    product = row_sum(product, local) / f32(k.columns);
    if (CENTERED) {
        sum = row_sum(sum, local) / f32(k.columns);
    } else {
        sum = 0.0;
    }
    for (var j = lane; j < stop; j += LANES) {
        let normalized = (f32(x[first + j]) - mean) * scale;
        var share = (h(first + j, j) - sum - normalized * product) * scale;
        if (ADDING) {
            share += f32(added[first + j]);
        }
        out[first + j] = stored(share);
    }
}
