// out = (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias of each row.
//
// The text before this one defines LANES and ROWS, CENTERED (whether the mean is subtracted), WEIGHTED
// and BIASED. Rows are read as Element, of WIDTH adjacent numbers, and computed as Value, which
// `stored` converts back and `added` sums. The mean is subtracted before the squares are summed:
// E[x^2] - E[x]^2 would cancel.

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
    let elements = k.columns / WIDTH;
    let stop = select(elements, 0u, wanted >= k.rows);
    let lane = local % LANES;
    let first = row * elements;
    var mean = 0.0;
    if (CENTERED) {
        var sum = Value();
        for (var j = lane; j < stop; j += LANES) {
            sum += Value(x[first + j]);
        }
        mean = row_sum(added(sum), local) / f32(k.columns);
    }
    var sum_of_squares = Value();
    for (var j = lane; j < stop; j += LANES) {
        let centered = Value(x[first + j]) - mean;
        sum_of_squares += centered * centered;
    }
    let squares = row_sum(added(sum_of_squares), local);
    // Squares that overflow make the row NaN: divided by infinity it would be 0.
    let overflows = (bitcast<u32>(squares) & 0x7fffffffu) >= 0x7f800000u;
    let scale = bitcast<f32>(select(
        bitcast<u32>(1.0 / sqrt(squares / f32(k.columns) + k.eps)), 0x7fc00000u, overflows
    ));
    for (var j = lane; j < stop; j += LANES) {
        var y = (Value(x[first + j]) - mean) * scale;
        if (WEIGHTED) {
            y *= Value(weight[j]);
        }
        if (BIASED) {
            y += Value(bias[j]);
        }
        out[first + j] = stored(y);
    }
    if (lane == 0u && stop > 0u) {
        statistics[row] = vec2<f32>(mean, scale);
    }
}
