// One product of an element of the gradient of the input, for each output of its channel: where tap
// (i, j) of some place has met it.

struct Place {
    image: u32, // where the gradient's first output of this channel begins
    weight: u32,
    y: u32, // behind the padding
    x: u32,
}

fn tap(at: Place, i: u32, j: u32) -> f32 {
    let y = at.y - i * k.gap_down;
    let x = at.x - j * k.gap_right;
    // A negative number has wrapped around: no size is so large that a quotient could be inside.
    let place_y = y / STEP_DOWN;
    let place_x = x / STEP_RIGHT;
    let inside = y < 0x80000000u && x < 0x80000000u && y % STEP_DOWN == 0u && x % STEP_RIGHT == 0u
        && place_y < k.down && place_x < k.right;
    let index = select(0u, at.image + place_y * k.right + place_x, inside);
    return select(0.0, load_a(index), inside) * load_b(at.weight + i * RIGHT + j);
}
