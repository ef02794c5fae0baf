// Rows are channels of c, columns its pixels; the depth is the channels of b and the taps of each.
// Coordinates wrap around, so that one comparison detects both edges.
//
// The text before this one defines the scalars, a, b and c, load_a, load_b, load_bias and stored.

struct Place {
    begin: u32,
    end: u32,
    part: u32, // which of the convolution's groups
}

struct Column {
    image: u32, // its start, at the first channel of this part
    y: u32, // of the pixel that tap 0 meets
    x: u32,
}

struct Step {
    channel: u32,
    down: u32, // the tap
    right: u32,
}

fn place(part: u32) -> Place {
    return Place(0u, k.depth, part);
}

fn row_at(at: Place, row: u32) -> u32 {
    return k.a_start + at.part * k.a_section + row * k.a_row;
}

fn column_at(at: Place, column: u32) -> Column {
    let image = column / k.places;
    let rest = column % k.places;
    let channel = at.part * (k.depth / k.area);
    return Column(
        k.b_start + image * k.b_batch + channel * k.height * k.width,
        rest / k.across * k.step_down + k.first_down,
        rest % k.across * k.step_right + k.first_right,
    );
}

fn step_at(depth: u32) -> Step {
    let channel = depth / k.area;
    let tap = depth - channel * k.area;
    return Step(channel, tap / k.right, tap % k.right);
}

fn value_a(row: u32, step: Step) -> f32 {
    return load_a(row + step.channel * k.a_channel + step.down * k.a_down + step.right * k.a_right);
}

fn value_b(column: Column, step: Step) -> f32 {
    let y = column.y + step.down * k.gap_down;
    let x = column.x + step.right * k.gap_right;
    if (y >= k.height || x >= k.width) {
        return 0.0;
    }
    return load_b(column.image + (step.channel * k.height + y) * k.width + x);
}

fn put(at: Place, row: u32, column: u32, value: f32) {
    let image = column / k.places;
    let rest = column % k.places;
    let channel = at.part * k.rows + row;
    let index = k.c_start + image * k.c_batch + channel * k.c_plane
        + rest / k.across * k.c_down + rest % k.across * k.c_right;
    c[index] = stored(value + load_bias(k.bias_start + channel));
}
