// The part that kernels reading logits share. After one of the files on fours.

const LOWEST = -3.4028234e38;

struct Exponentials {
    largest: f32,
    sum: f32,
}

// The largest element of a row and the sum of exp(x - largest), in one pass: an invocation reads four
// elements at a time and scales its sum when the largest changes. Milakov, Gimelshein: "Online
// normalizer calculation for softmax", arXiv:1805.02867. NaN may be lost as the largest element; it
// returns with the sum.
fn row_exponentials(row: Row, local: u32) -> Exponentials {
    var largest = LOWEST;
    var sum = 0.0;
    for (var step = 0u; step < steps_of(row); step++) {
        let columns = columns_at(row, step);
        let own = columns < vec4<u32>(row.stop);
        let x = select(vec4<f32>(LOWEST), logits_at(row, columns), own);
        let top = max(largest, max(max(x.x, x.y), max(x.z, x.w)));
        let terms = select(vec4<f32>(), exponential_of_negative(x - top), own);
        sum = sum * exp1(largest - top) + ((terms.x + terms.y) + (terms.z + terms.w));
        largest = top;
    }
    let of_row = row_maximum(largest, row, local);
    return Exponentials(of_row, row_sum(sum * exp1(largest - of_row), local));
}

fn row_maximum(value: f32, row: Row, local: u32) -> f32 {
    workgroupBarrier();
    shared_values[local] = value;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (row.lane < half) {
            shared_values[local] = max(shared_values[local], shared_values[local + half]);
        }
    }
    workgroupBarrier();
    return shared_values[local - row.lane];
}
