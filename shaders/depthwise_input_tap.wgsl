// One product of an element of the input's gradient, for each output of its channel: from the place
// where tap (i, j) met the element, if there is one.

struct Place {
    image: u32, // the start of the gradient's first output of this channel
    weight: u32,
    y: u32, // in the padded input
    x: u32,
}

fn tap(at: Place, i: u32, j: u32) -> f32 {
    let y = at.y - i * k.gap_down;
    let x = at.x - j * k.gap_right;
    // Negative numbers have wrapped around; no size is so large that their quotients are inside.
    let place_y = y / STEP_DOWN;
    let place_x = x / STEP_RIGHT;
    let inside = y < 0x80000000u && x < 0x80000000u && y % STEP_DOWN == 0u && x % STEP_RIGHT == 0u
        && place_y < k.down && place_x < k.right;
    let index = select(0u, at.image + place_y * k.right + place_x, inside);
    return select(0.0, load_a(index), inside) * load_b(at.weight + i * RIGHT + j);
}
