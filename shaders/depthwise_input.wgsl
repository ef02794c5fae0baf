// The gradient of the input of a convolution with one input channel per output: one invocation per
// element adds up the contributions of the outputs that it affects.
// The text before this one defines the scalars, the sizes of the kernel, a (the gradient), b (the
// weight) and c with their functions, and `taps`, which sums the products of an element.

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
    let plane = i / k.width / k.height;
    let inputs = k.outputs / k.share;
    let y = i / k.width % k.height + k.padding_down;
    let x = i % k.width + k.padding_right;
    var sum = 0.0;
    for (var n = 0u; n < k.share; n++) {
        let output = plane % inputs * k.share + n;
        let from_ = (plane / inputs * k.outputs + output) * k.down * k.right;
        sum += taps(Place(k.a_start + from_, k.b_start + output * AREA, y, x));
    }
    c[k.c_start + i] = stored(sum);
}
