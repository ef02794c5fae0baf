// c = a b + bias for matrices with any strides, in tiles of 32 x 32, 16 steps of k at a time.
//
// An invocation computes 4 x 4 elements: rows 4 * row .. and columns 4 * column .. of the tile. Tiles
// of a and b lie in workgroup memory with k as the first axis, so that both are read four at a time.
// Outside a matrix, indices are clamped and 0 is loaded.
//
// The text before this one defines A_ALONG_K and B_ALONG_K (whether elements adjacent along k are
// adjacent in memory, so that lanes load along k), SUMS (whether the rows of a are added up as well),
// the functions of storage, `bias_at`, `write_sum`, and `write`, which applies the epilogue.

struct Scalars {
    rows: u32,
    columns: u32,
    depth: u32,
    inner_batches: u32,
    a_start: u32,
    a_row: u32,
    a_step: u32,
    a_outer: u32,
    a_inner: u32,
    b_start: u32,
    b_step: u32,
    b_column: u32,
    b_outer: u32,
    b_inner: u32,
    c_start: u32,
    bias_start: u32,
    sums_start: u32,
    tile_rows: u32,
    tile_columns: u32,
    tiles: u32,
}

var<immediate> k: Scalars;

const TILE = 32u;
const STEPS = 16u;
const PAD = 36u; // so that lanes that store along k use different banks

var<workgroup> tile_a: array<f32, 576>;
var<workgroup> tile_b: array<f32, 576>;

fn load_a(base: u32, first_row: u32, first_step: u32, local: u32) {
    for (var j = 0u; j < 8u; j++) {
        let n = local + j * 64u;
        let row = select(n % TILE, n / STEPS, A_ALONG_K);
        let step = select(n / TILE, n % STEPS, A_ALONG_K);
        let inside = first_row + row < k.rows && first_step + step < k.depth;
        let at = base + min(first_row + row, k.rows - 1u) * k.a_row
            + min(first_step + step, k.depth - 1u) * k.a_step;
        tile_a[step * PAD + row] = select(0.0, value_a(a[at]), inside);
    }
}

fn load_b(base: u32, first_column: u32, first_step: u32, local: u32) {
    for (var j = 0u; j < 8u; j++) {
        let n = local + j * 64u;
        let column = select(n % TILE, n / STEPS, B_ALONG_K);
        let step = select(n / TILE, n % STEPS, B_ALONG_K);
        let inside = first_column + column < k.columns && first_step + step < k.depth;
        let at = base + min(first_column + column, k.columns - 1u) * k.b_column
            + min(first_step + step, k.depth - 1u) * k.b_step;
        tile_b[step * PAD + column] = select(0.0, value_b(b[at]), inside);
    }
}

fn store(base: u32, row: u32, column: u32, values: vec4<f32>) {
    if (row >= k.rows) {
        return;
    }
    for (var j = 0u; j < 4u; j++) {
        if (column + j < k.columns) {
            write(base + row * k.columns + column + j, values[j] + bias_at(column + j));
        }
    }
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let linear = group.y * groups.x + group.x;
    let tile = min(linear, k.tiles - 1u);
    let per_matrix = k.tile_rows * k.tile_columns;
    let batch = tile / per_matrix;
    let first_row = ((tile % per_matrix) / k.tile_columns) * TILE;
    let first_column = ((tile % per_matrix) % k.tile_columns) * TILE;
    let outer = batch / k.inner_batches;
    let inner = batch % k.inner_batches;
    let base_a = k.a_start + outer * k.a_outer + inner * k.a_inner;
    let base_b = k.b_start + outer * k.b_outer + inner * k.b_inner;
    let row = (local / 8u) * 4u;
    let column = (local % 8u) * 4u;
    var c0 = vec4<f32>(0.0);
    var c1 = vec4<f32>(0.0);
    var c2 = vec4<f32>(0.0);
    var c3 = vec4<f32>(0.0);
    let sums_up = SUMS && first_column == 0u && local < TILE;
    var total = 0.0;
    for (var step = 0u; step < k.depth; step += STEPS) {
        load_a(base_a, first_row, step, local);
        load_b(base_b, first_column, step, local);
        workgroupBarrier();
        // Each tile has a sum of its own: fewer numbers are added to a sum that is already large.
        var d0 = vec4<f32>(0.0);
        var d1 = vec4<f32>(0.0);
        var d2 = vec4<f32>(0.0);
        var d3 = vec4<f32>(0.0);
        for (var s = 0u; s < STEPS; s++) {
            let at_a = s * PAD + row;
            let at_b = s * PAD + column;
            let y = vec4<f32>(tile_b[at_b], tile_b[at_b + 1u], tile_b[at_b + 2u], tile_b[at_b + 3u]);
            d0 += tile_a[at_a] * y;
            d1 += tile_a[at_a + 1u] * y;
            d2 += tile_a[at_a + 2u] * y;
            d3 += tile_a[at_a + 3u] * y;
        }
        c0 += d0;
        c1 += d1;
        c2 += d2;
        c3 += d3;
        if (sums_up) {
            var part = 0.0;
            for (var s = 0u; s < STEPS; s++) {
                part += tile_a[s * PAD + local];
            }
            total += part;
        }
        workgroupBarrier();
    }
    if (linear >= k.tiles) {
        return;
    }
    if (sums_up && first_row + local < k.rows) {
        write_sum(first_row + local, total);
    }
    let base = batch * k.rows * k.columns;
    store(base, first_row + row, first_column + column, c0);
    store(base, first_row + row + 1u, first_column + column, c1);
    store(base, first_row + row + 2u, first_column + column, c2);
    store(base, first_row + row + 3u, first_column + column, c3);
}
