// Rows are channels of the gradient a, columns the channels of b and the taps of each; the depth is
// the places of the kernel in all images, and a workgroup adds up a part of it. Coordinates wrap
// around, so that one comparison detects both edges.
//
// The text before this one defines the scalars, a, b and c, load_a, load_b and stored.

struct Place {
    begin: u32,
    end: u32,
    section: u32, // which of the convolution's groups
    part: u32, // which of its matrices, one for each part of the depth
}

struct Column {
    channel: u32, // its start in the first image
    y: u32, // of the pixel that the tap meets at place 0
    x: u32,
}

struct Step {
    image: u32,
    place: u32,
    y: u32, // how far the kernel has moved
    x: u32,
}

fn place(part: u32) -> Place {
    let begin = part / k.sections * k.split_depth;
    return Place(begin, min(begin + k.split_depth, k.depth), part % k.sections, part);
}

fn row_at(at: Place, row: u32) -> u32 {
    return k.a_start + (at.section * k.rows + row) * k.places;
}

fn column_at(at: Place, column: u32) -> Column {
    let channel = column / k.area + at.section * (k.columns / k.area);
    let tap = column % k.area;
    return Column(
        k.b_start + channel * k.height * k.width,
        tap / k.right * k.gap_down + k.first_down,
        tap % k.right * k.gap_right + k.first_right,
    );
}

fn step_at(depth: u32) -> Step {
    let image = depth / k.places;
    let rest = depth - image * k.places;
    return Step(image, rest, rest / k.across * k.step_down, rest % k.across * k.step_right);
}

fn value_a(row: u32, step: Step) -> f32 {
    return load_a(row + step.image * k.a_batch + step.place);
}

fn value_b(column: Column, step: Step) -> f32 {
    let y = column.y + step.y;
    let x = column.x + step.x;
    if (y >= k.height || x >= k.width) {
        return 0.0;
    }
    return load_b(column.channel + step.image * k.b_batch + y * k.width + x);
}

fn put(at: Place, row: u32, column: u32, value: f32) {
    c[k.c_start + (at.part * k.rows + row) * k.columns + column] = stored(value);
}
