fn write_at(row: Row, columns: vec4<u32>, values: vec4<f32>) {
    let four = stored(values);
    for (var i = 0u; i < 4u; i++) {
        if (columns[i] < row.stop) {
            x[place_of(row, columns[i])] = four[i];
        }
    }
}
