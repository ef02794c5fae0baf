// out = factor times the sum of each window.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let number = (group.y * groups.x + group.x) * WORKGROUP + local;
    if (number >= k.size) {
        return;
    }
    let row = i32(number) / k.columns;
    let place = vec2<i32>(row % k.rows, i32(number) % k.columns);
    let plane = row / k.rows * k.height * k.width;
    var sum = 0.0;
    for (var i = 0; i < KERNEL.x; i++) {
        for (var j = 0; j < KERNEL.y; j++) {
            let at = place * STRIDE - PADDING + vec2<i32>(i, j) * DILATION;
            if (is_element(at)) {
                sum += x[plane + at.x * k.width + at.y];
            }
        }
    }
    out[number] = sum * k.factor;
}
