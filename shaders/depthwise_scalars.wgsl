// The scalars of depthwise convolutions. share: outputs per input. height, width: of the input;
// down, right: of the result. last: the start of the bias, or the images of a part.

struct Scalars {
    size: u32,
    batch: u32,
    outputs: u32,
    share: u32,
    height: u32,
    width: u32,
    down: u32,
    right: u32,
    padding_down: u32,
    padding_right: u32,
    gap_down: u32,
    gap_right: u32,
    a_start: u32,
    b_start: u32,
    c_start: u32,
    last: u32,
}

var<immediate> k: Scalars;
