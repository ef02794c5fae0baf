// h = tanh(x + z), or max(x + z, 0). After recurrent.wgsl.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> z: array<f32>;
@group(0) @binding(2) var<storage, read_write> h: array<f32>;

fn cell_step(e: Element) {
    if (!e.goes_on) {
        h[e.after] = h[e.before];
        return;
    }
    let sum = x[k.given_start + gate_at(e, 0u, 1u)] + z[row_at(e, 0u, 1u)];
    if (IS_RELU) {
        h[e.after] = relu(vec4<f32>(sum)).x;
    } else {
        h[e.after] = tanh1(sum);
    }
}
