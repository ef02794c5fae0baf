// Other workgroups write the elements of other rows in a vector at the end of this one.
fn write_at(row: Row, columns: vec4<u32>, values: vec4<f32>) {
    let four = stored(values);
    let own = columns < vec4<u32>(row.stop);
    let place = (k.start0 + row.first + columns.w) / 4u;
    if (all(own)) {
        x[place] = four;
        return;
    }
    if (own.x) { x[place].x = four.x; }
    if (own.y) { x[place].y = four.y; }
    if (own.z) { x[place].z = four.z; }
    if (own.w) { x[place].w = four.w; }
}
