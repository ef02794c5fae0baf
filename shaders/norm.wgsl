// out = (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias of each row.
//
// The text before this one defines LANES and ROWS, CENTERED (whether the mean is subtracted), WEIGHTED
// and BIASED, Element and `stored`, which converts a number to it. The mean is subtracted before the
// squares are summed: E[x^2] - E[x]^2 would cancel.

struct Scalars {
    rows: u32,
    columns: u32,
    eps: f32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> weight: array<Element>;
@group(0) @binding(2) var<storage, read> bias: array<Element>;
@group(0) @binding(3) var<storage, read_write> out: array<Element>;
@group(0) @binding(4) var<storage, read_write> statistics: array<vec2<f32>>;

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
    var mean = 0.0;
    if (CENTERED) {
        for (var j = lane; j < stop; j += LANES) {
            mean += f32(x[first + j]);
        }
        mean = row_sum(mean, local) / f32(k.columns);
    }
    var squares = 0.0;
    for (var j = lane; j < stop; j += LANES) {
        let centered = f32(x[first + j]) - mean;
        squares += centered * centered;
    }
    squares = row_sum(squares, local);
    // Squares that overflow make the row NaN: divided by infinity it would be 0.
    let overflows = (bitcast<u32>(squares) & 0x7fffffffu) >= 0x7f800000u;
    let scale = bitcast<f32>(select(
        bitcast<u32>(1.0 / sqrt(squares / f32(k.columns) + k.eps)), 0x7fc00000u, overflows
    ));
    for (var j = lane; j < stop; j += LANES) {
        var y = (f32(x[first + j]) - mean) * scale;
        if (WEIGHTED) {
            y *= f32(weight[j]);
        }
        if (BIASED) {
            y += f32(bias[j]);
        }
        out[first + j] = stored(y);
    }
    if (lane == 0u && stop > 0u) {
        statistics[row] = vec2<f32>(mean, scale);
    }
}
