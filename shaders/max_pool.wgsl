// The largest element of each window; NaN wins.

@group(0) @binding(0) var<storage, read> x: array<f32>;

fn result(number: i32) -> f32 {
    let row = number / k.columns;
    let place = vec2<i32>(row % k.rows, number % k.columns);
    let plane = row / k.rows * k.height * k.width;
    var lowest = 0xff800000u;  // a variable: compilers may refuse an infinity that they can compute
    var best = bitcast<f32>(lowest);
    for (var i = 0; i < KERNEL.x; i++) {
        for (var j = 0; j < KERNEL.y; j++) {
            let at = place * STRIDE - PADDING + vec2<i32>(i, j) * DILATION;
            if (is_element(at)) {
                let value = x[plane + at.x * k.width + at.y];
                if (is_nan1(value) || (!is_nan1(best) && value > best)) {
                    best = value;
                }
            }
        }
    }
    return best;
}
