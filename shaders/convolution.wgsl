// A convolution as a matrix product in tiles of 32 x 32, 16 steps of the depth at a time, as in
// matmul.wgsl. A lane always loads from the same row of a and the same column of b. The text before
// this one defines where these and each step of the depth lie: `place` (of a workgroup), `row_at`,
// `column_at`, `step_at`, `value_a`, `value_b` and `put`.

const TILE = 32u;
const STEPS = 16u;
const PAD = 36u; // so that lanes use different banks

var<workgroup> tile_a: array<f32, 576>;
var<workgroup> tile_b: array<f32, 576>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let linear = group.y * groups.x + group.x;
    let tile = min(linear, k.groups - 1u);
    let at = place(tile / k.tile_rows / k.tiles);
    let first_row = tile % k.tile_rows * TILE;
    let first_column = tile / k.tile_rows % k.tiles * TILE;
    let loaded = local % TILE;
    // Outside a matrix, lanes read its last row or column; their results are not stored.
    let from_a = row_at(at, min(first_row + loaded, k.rows - 1u));
    let from_b = column_at(at, min(first_column + loaded, k.columns - 1u));
    let row = local / 8u * 4u;
    let column = local % 8u * 4u;
    // Always 0, but no compiler knows: it does not unroll loops that it cannot count.
    let zero = u32(k.groups == 0u);
    var sums: array<vec4<f32>, 4>;
    for (var first = at.begin; first < at.end; first += STEPS) {
        for (var s = local / TILE + zero; s < STEPS; s += 2u) {
            var a_value = 0.0;
            var b_value = 0.0;
            if (first + s < at.end) {
                let step = step_at(first + s);
                a_value = value_a(from_a, step);
                b_value = value_b(from_b, step);
            }
            tile_a[s * PAD + loaded] = a_value;
            tile_b[s * PAD + loaded] = b_value;
        }
        workgroupBarrier();
        for (var s = zero; s < STEPS; s++) {
            let at_a = s * PAD + row;
            let at_b = s * PAD + column;
            let y = vec4<f32>(tile_b[at_b], tile_b[at_b + 1u], tile_b[at_b + 2u], tile_b[at_b + 3u]);
            sums[0] += tile_a[at_a] * y;
            sums[1] += tile_a[at_a + 1u] * y;
            sums[2] += tile_a[at_a + 2u] * y;
            sums[3] += tile_a[at_a + 3u] * y;
        }
        workgroupBarrier();
    }
    if (linear >= k.groups) {
        return;
    }
    for (var n = zero; n < 16u; n++) {
        if (first_row + row + n / 4u < k.rows && first_column + column + n % 4u < k.columns) {
            put(at, first_row + row + n / 4u, first_column + column + n % 4u, sums[n / 4u][n % 4u]);
        }
    }
}
