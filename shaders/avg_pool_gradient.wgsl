// share = of each element factor times the gradients of its windows.

@group(0) @binding(0) var<storage, read> g: array<f32>;
@group(0) @binding(1) var<storage, read_write> share: array<f32>;

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
    let row = i32(number) / k.width;
    let at = vec2<i32>(row % k.height, i32(number) % k.width);
    let plane = row / k.height;
    var sum = 0.0;
    for (var i = KERNEL.x - 1; i >= 0; i--) {
        for (var j = KERNEL.y - 1; j >= 0; j--) {
            let place = place_of(at, vec2<i32>(i, j));
            if (place.x >= 0) {
                sum += g[(plane * k.rows + place.x) * k.columns + place.y];
            }
        }
    }
    share[number] = sum * k.factor;
}
