// The gradient of the weight of a convolution with one input channel per output: one workgroup per
// output and some images. Lanes take every 64th place; then each sums one tap over all lanes.
// The text before this one defines the scalars, the sizes of the kernel, a (the input), b (the
// gradient) and c with their functions, `add_taps`, which adds the products of one place to all sums,
// and `keep`, which writes the sums to `lanes`.

var<workgroup> lanes: array<f32, 64u * AREA>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let linear = group.y * groups.x + group.x;
    let held = min(linear, k.size - 1u);
    let output = held % k.outputs;
    let first = held / k.outputs * k.last;
    let places = k.down * k.right;
    let all = (min(first + k.last, k.batch) - first) * places;
    var sums: array<f32, AREA>;
    for (var n = local; n < all; n += 64u) {
        let image = first + n / places;
        let place = n % places;
        let channel = image * (k.outputs / k.share) + output / k.share;
        let at = Place(
            k.a_start + channel * k.height * k.width,
            place / k.right * STEP_DOWN - k.padding_down,
            place % k.right * STEP_RIGHT - k.padding_right,
        );
        add_taps(at, load_b(k.b_start + (image * k.outputs + output) * places + place), &sums);
    }
    keep(local, &sums);
    workgroupBarrier();
    if (local < AREA && linear < k.size) {
        var sum = 0.0;
        for (var lane = 0u; lane < 64u; lane++) {
            sum += lanes[local * 64u + lane];
        }
        c[k.c_start + held * AREA + local] = stored(sum);
    }
}
