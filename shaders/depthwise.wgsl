// A convolution with one input channel per output: one invocation per element.
// The text before this one defines the scalars, the sizes of the kernel, a (the input), b (the
// weight), c and d (the bias) with their functions, and `taps`, which sums the products of an element.

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.y * groups.x + group.x) * 64u + local;
    if (i >= k.size) {
        return;
    }
    let plane = i / k.right / k.down;
    let output = plane % k.outputs;
    let channel = plane / k.outputs * (k.outputs / k.share) + output / k.share;
    let at = Place(
        k.a_start + channel * k.height * k.width,
        k.b_start + output * AREA,
        i / k.right % k.down * STEP_DOWN - k.padding_down,
        i % k.right * STEP_RIGHT - k.padding_right,
    );
    c[k.c_start + i] = stored(taps(at) + load_d(k.last + output));
}
