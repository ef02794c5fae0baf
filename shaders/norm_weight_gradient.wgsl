// The gradients of weight and bias: sums over the rows of a block of g (x - mean) scale and of g.
//
// An invocation takes one of 64 adjacent columns, a workgroup one block of rows; if there are
// several blocks, norm_weight_total.wgsl adds them up. BIASED: whether to write the bias's gradient.
// Rows hold Element; `stored` converts a number to Sum.

struct Scalars {
    rows: u32,
    columns: u32,
    block_rows: u32,
    column_groups: u32,
}

var<immediate> k: Scalars;
@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> statistics: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> g: array<Element>;
@group(0) @binding(3) var<storage, read_write> weights: array<Sum>;
@group(0) @binding(4) var<storage, read_write> biases: array<Sum>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let number = group.y * groups.x + group.x;
    let block = number / k.column_groups;
    let column = (number % k.column_groups) * 64u + local;
    let start = block * k.block_rows;
    if (column >= k.columns || start >= k.rows) {
        return;
    }
    var sum = 0.0;
    var product = 0.0;
    for (var row = start; row < min(start + k.block_rows, k.rows); row++) {
        let gradient = f32(g[row * k.columns + column]);
        let normalized = (f32(x[row * k.columns + column]) - statistics[row].x) * statistics[row].y;
        sum += gradient;
        product += gradient * normalized;
    }
    weights[block * k.columns + column] = stored(product);
    if (BIASED) {
        biases[block * k.columns + column] = stored(sum);
    }
}
