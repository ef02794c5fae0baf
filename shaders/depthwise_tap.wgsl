// One product of an element of a convolution with one input channel per output.

struct Place {
    image: u32, // the start of its input channel
    weight: u32,
    y: u32, // of tap 0 in the input; wraps around below 0
    x: u32,
}

fn tap(at: Place, i: u32, j: u32) -> f32 {
    let y = at.y + i * k.gap_down;
    let x = at.x + j * k.gap_right;
    let inside = y < k.height && x < k.width;
    let value = load_a(select(0u, at.image + y * k.width + x, inside));
    return select(0.0, value, inside) * load_b(at.weight + i * RIGHT + j);
}
