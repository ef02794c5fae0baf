// How an invocation takes four elements of a row at a time: beside each other, as the buffer aligns
// them, so that those at the ends of a row may belong to the rows beside it. After rows.wgsl; the
// program binds x, in vectors.

fn steps_of(row: Row) -> u32 {
    let start = (k.start0 + row.first) % 4u;
    return select((start + row.stop + 4u * LANES - 1u) / (4u * LANES), 0u, row.stop == 0u);
}

// The columns of the elements; those of other rows are no smaller than row.stop.
fn columns_at(row: Row, step: u32) -> vec4<u32> {
    let start = (k.start0 + row.first) % 4u;
    return vec4<u32>(4u * (row.lane + LANES * step)) + vec4<u32>(0u, 1u, 2u, 3u) - start;
}

fn logit(row: Row, column: u32) -> f32 {
    let place = k.start0 + row.first + column;
    return f32(x[place / 4u][place % 4u]);
}

fn logits_at(row: Row, columns: vec4<u32>) -> vec4<f32> {
    let last = k.start0 + row.first + k.columns - 1u;
    return vec4<f32>(x[min((k.start0 + row.first + columns.w) / 4u, last / 4u)]);
}
