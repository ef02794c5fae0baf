// How an invocation takes four elements of a row at a time: each of them beside those of its neighbors.
// After rows.wgsl; the program binds x.

fn steps_of(row: Row) -> u32 {
    return (row.stop + 4u * LANES - 1u) / (4u * LANES);
}

// The columns of the elements; those past the edge are no smaller than row.stop.
fn columns_at(row: Row, step: u32) -> vec4<u32> {
    return vec4<u32>(row.lane + 4u * LANES * step) + vec4<u32>(0u, 1u, 2u, 3u) * LANES;
}

fn place_of(row: Row, column: u32) -> u32 {
    return k.start0 + row.first + min(column, k.columns - 1u) * k.places;
}

fn logit(row: Row, column: u32) -> f32 {
    return f32(x[place_of(row, column)]);
}

fn logits_at(row: Row, columns: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(
        logit(row, columns.x), logit(row, columns.y), logit(row, columns.z), logit(row, columns.w)
    );
}
