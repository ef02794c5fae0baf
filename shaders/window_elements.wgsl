// An invocation writes one element; the text before this one defines `result`, its value.

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let number = (group.y * groups.x + group.x) * WORKGROUP + local;
    if (number < k.size) {
        written[number] = result(i32(number));
    }
}
