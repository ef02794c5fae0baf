// The sum of the gradients of each element's windows times factor.

@group(0) @binding(0) var<storage, read> g: array<f32>;

fn result(number: i32) -> f32 {
    let row = number / k.width;
    let at = vec2<i32>(row % k.height, number % k.width);
    let plane = row / k.height;
    var sum = 0.0;
    for (var i = KERNEL.x - 1; i >= 0; i--) {
        for (var j = KERNEL.y - 1; j >= 0; j--) {
            let place = place_of(at, vec2<i32>(i, j));
            if (place.x >= 0) {
                sum += k.factor * g[(plane * k.rows + place.x) * k.columns + place.y];
            }
        }
    }
    return sum;
}
