// The sum of each window's elements times factor: the sum itself may overflow.

@group(0) @binding(0) var<storage, read> x: array<f32>;

fn result(number: i32) -> f32 {
    let row = number / k.columns;
    let place = vec2<i32>(row % k.rows, number % k.columns);
    let plane = row / k.rows * k.height * k.width;
    var sum = 0.0;
    for (var i = 0; i < KERNEL.x; i++) {
        for (var j = 0; j < KERNEL.y; j++) {
            let at = place * STRIDE - PADDING + vec2<i32>(i, j) * DILATION;
            if (is_element(at)) {
                sum += k.factor * x[plane + at.x * k.width + at.y];
            }
        }
    }
    return sum;
}
