// The gradient of max pooling if every element is in exactly one window: an invocation handles one
// window, whose first largest element gets its gradient; NaN for a NaN.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> out: array<f32>;
@group(0) @binding(2) var<storage, read> g: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let number = i32((group.y * groups.x + group.x) * WORKGROUP + local);
    if (number >= i32(k.size)) {
        return;
    }
    let row = number / k.columns;
    let first = row * KERNEL.x * k.width + number % k.columns * KERNEL.y;
    let largest = out[number];
    let gradient = g[number];
    var is_open = true;
    for (var i = 0; i < KERNEL.x; i++) {
        for (var j = 0; j < KERNEL.y; j++) {
            let at = first + i * k.width + j;
            let mine = x[at];
            let is_first = is_open && is_same(mine, largest);
            written[at] = select(0.0, select(gradient, mine, is_nan1(mine)), is_first);
            is_open = is_open && !is_first;
        }
    }
}
