// The sum, for each element, of the gradients of the windows whose first largest element it is; NaN
// for a NaN.
//
// Each element searches its own windows, so that no sum has several writers.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> out: array<f32>;
@group(0) @binding(2) var<storage, read> g: array<f32>;

// Whether an element of the window before (i, j) is as large.
fn has_earlier(place: vec2<i32>, ij: vec2<i32>, plane: i32, largest: f32) -> bool {
    for (var number = ij.x * KERNEL.y + ij.y - 1; number >= 0; number--) {
        let other = vec2<i32>(number / KERNEL.y, number % KERNEL.y);
        let at = place * STRIDE - PADDING + other * DILATION;
        if (is_element(at) && is_same(x[plane + at.x * k.width + at.y], largest)) {
            return true;
        }
    }
    return false;
}

fn result(number: i32) -> f32 {
    let row = number / k.width;
    let at = vec2<i32>(row % k.height, number % k.width);
    let plane = row / k.height;
    let mine = x[number];
    var sum = 0.0;
    for (var i = KERNEL.x - 1; i >= 0; i--) {
        for (var j = KERNEL.y - 1; j >= 0; j--) {
            let ij = vec2<i32>(i, j);
            let place = place_of(at, ij);
            if (place.x >= 0) {
                let seen = (plane * k.rows + place.x) * k.columns + place.y;
                let is_largest = is_same(mine, out[seen]);
                if (is_largest && !has_earlier(place, ij, plane * k.height * k.width, mine)) {
                    sum += select(g[seen], mine, is_nan1(mine));
                }
            }
        }
    }
    return sum;
}
