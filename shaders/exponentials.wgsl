// The part that kernels reading logits share. After rows.wgsl.

@group(0) @binding(0) var<storage, read> x: array<X>;

const LOWEST = -3.4028234e38;

fn logit(row: Row, column: u32) -> f32 {
    return f32(x[k.start0 + row.first + column * k.places]);
}

// The largest element of a row. NaN may be lost here; it returns with the sum of the exponentials.
fn row_largest(row: Row, local: u32) -> f32 {
    var largest = LOWEST;
    for (var j = row.lane; j < row.stop; j += LANES) {
        largest = max(largest, logit(row, j));
    }
    workgroupBarrier();
    shared_values[local] = largest;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (row.lane < half) {
            shared_values[local] = max(shared_values[local], shared_values[local + half]);
        }
    }
    workgroupBarrier();
    return shared_values[local - row.lane];
}

// The sum of exp(x - largest) over a row.
fn row_exponentials(row: Row, largest: f32, local: u32) -> f32 {
    var sum = 0.0;
    for (var j = row.lane; j < row.stop; j += LANES) {
        sum += exp1(logit(row, j) - largest);
    }
    return row_sum(sum, local);
}
