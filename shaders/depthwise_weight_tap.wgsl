// The input element that a tap meets at one place.

struct Place {
    image: u32, // the start of the input channel
    y: u32, // of tap 0 in the input; wraps around below 0
    x: u32,
}

fn tap(at: Place, i: u32, j: u32) -> f32 {
    let y = at.y + i * k.gap_down;
    let x = at.x + j * k.gap_right;
    let inside = y < k.height && x < k.width;
    return select(0.0, load_a(select(0u, at.image + y * k.width + x, inside)), inside);
}
